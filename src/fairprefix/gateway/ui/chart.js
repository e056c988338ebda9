// Lines over time as SVG, drawn anew each time. Only text nodes: nothing in here is parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

export function shape(name, attributes, text) {
  const found = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  if (text !== undefined) found.textContent = text;
  return found;
}

// A few thousand as 3.2k: axes have little room.
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return (value / unit).toFixed(size >= 100 * unit ? 0 : 1).replace(/\.0$/, "") + name;
  }
  return size >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(2);
}

function line(points, x, y) {
  let path = "";
  let pen = "M";
  for (const [at, value] of points) {
    if (value === null || value === undefined) { pen = "M"; continue; }
    path += `${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  }
  return path;
}

// series: [{name, points: [[seconds, value or null], ...]}]; the span is what the x axis covers, in seconds.
export function drawLines(svg, series, span) {
  const width = svg.clientWidth || 600, height = svg.clientHeight || 200;
  const left = 46, right = 10, top = 8, bottom = 20;
  const now = Math.max(0, ...series.flatMap((one) => one.points.map(([at]) => at)));
  const most = Math.max(1, ...series.flatMap((one) => one.points.map(([, value]) => value ?? 0))) * 1.08;
  const x = (at) => left + (width - left - right) * Math.max(0, 1 - (now - at) / span);
  const y = (value) => height - bottom - (height - top - bottom) * (value / most);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const at = y(most * share / 1.08);
    parts.push(shape("line", { class: "axis", x1: left, x2: width - right, y1: at, y2: at }));
    parts.push(shape("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, short(most * share / 1.08)));
  }
  parts.push(shape("text", { x: left, y: height - 4 }, span < 120 ? `${Math.round(span)} s ago` : `${Math.round(span / 60)} min ago`));
  parts.push(shape("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "now"));
  for (const one of series) parts.push(shape("path", { class: one.name, d: line(one.points, x, y) }));
  svg.replaceChildren(...parts);
}

export function drawSpark(svg, values) {
  const width = 240, height = 34, most = Math.max(1, ...values);
  const step = width / Math.max(values.length - 1, 1);
  const top = values.map((value, index) => `${(index * step).toFixed(1)} ${(height - 2 - (height - 5) * value / most).toFixed(1)}`);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(
    shape("path", { class: "area", d: `M0 ${height} L${top.join(" L")} L${width} ${height} Z` }),
    shape("path", { class: "gap", d: `M${top.join(" L")}`, "vector-effect": "non-scaling-stroke" }),
  );
}
