"""Why mutants that survive are equivalent: nothing that a caller can see, or is promised, tells them apart."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from attrs import frozen


@frozen
class Reason:
    """One reason, and the survivors that it holds for."""

    where: str
    """The function, as "module.function" or "module.Class.method"; `*` stands for anything."""
    changed: str
    """A regular expression that is found in the lines that differ (- what was, + what the mutant says)."""
    why: str

    def holds_for(self, function: str, lines: str) -> bool:
        """Return whether this is why a mutant of a function survives, which differs in these lines."""
        return fnmatchcase(function, self.where) and bool(re.search(self.changed, lines, re.MULTILINE))


SAME_LENGTH = "Both sequences have the same length by construction: how `zip` treats others makes no difference."
WORDING = "The text of a message: what it names is tested, its wording is not."
FRACTIONS = "The sum of fractions is a fraction whatever it starts from."
TIES = "Only where two values are equal, and then either answer is right."
KEYS_ONLY = "Of this table only the keys are looked at."
FALSY = "Only whether it is true is looked at."
NUMBERS = "Numbers of requests and receipts are only compared with each other."
UNTIL_SET = "The value is replaced before anything reads it."
SHIFT = "All values of the walk are shifted by one constant: only differences count."

REASONS: tuple[Reason, ...] = (
    Reason("*", r"^\+.*zip\(.*(strict=None|strict=False|, \))", SAME_LENGTH),
    Reason("*", r"^\+.*\bXX[^X]*XX", WORDING),
    Reason("*", r"^\+\s*(else \()?\"[A-Z ,:]+\"", WORDING),
    Reason("gaps._Follower._close", r"THE LEDGER CLOSES", WORDING),
    Reason("bounds_dlpm.dlpm_published", r"WRONG FOR THIS ENGINE", WORDING),
    Reason("*", r"^-.*sum\(.*Fraction\(0\)\)", FRACTIONS),
    Reason("bounds_dlpm.newcomer_wait_weighted", r"^-\s*Fraction\(0\),", FRACTIONS),
    Reason("accounts.AccountTable.*", r"^\+.*_idle\[.*\] = \"\"", KEYS_ONLY),
    Reason(
        "accounts.AccountTable.load",
        r'saved.keys\(\) - \{"(KEY|XXkeyXX)"',
        "The account gets the key that it has already.",
    ),
    Reason(
        "bounds_base.one_client_debt",
        r"^\+.*cost.output > cost.extend",
        "At equal prices it makes no difference whether prompt or output fills the memory first.",
    ),
    Reason(
        "config._check_identity",
        r"^\+.*XXXX",
        "What is no text has no kind of source that is known, and is refused either way.",
    ),
    Reason(
        "contract.HostContract.preempt", r'^\+.*receipt = ""', "Neither value is a receipt that can be handed in."
    ),
    Reason("errors.nearest", r"^\+.*(n=2|known\), cutoff)", "The best match comes first, and only that is used."),
    Reason("fcfs.SingleQueuePolicy._mark", r"lambda: 0", "Nobody looks at what undoing returns."),
    Reason("gaps.widest_gap", r"^\+.*spread < widest.size", "A pair that can only be as wide changes nothing."),
    Reason(
        "gaps._widest_of_pair",
        r"^\+.*low_at <= high_at",
        "The walk has a lowest and a highest value that differ by now, so they are at different places.",
    ),
    Reason(
        "gaps._together", r"^\+.*start <= end", "Two events have different orders; an empty interval has no steps."
    ),
    Reason(
        "gaps._together",
        r"^\+.*first\[i\]\[1\] <= second",
        "Stays end at different events, or both with the history, where no later stay follows.",
    ),
    Reason("gaps._steps", r"bisect_left", "Where the search begins changes its time, not what it finds."),
    Reason("gaps._extremes", r"level = low = high = 1", SHIFT),
    Reason(
        "gaps._extremes", r"never = \(down.end, 1\)", "This amount is never charged: nothing comes after the end."
    ),
    Reason("gaps._extremes", r"^\+.*next_order <= order", "Two events have different orders."),
    Reason("gaps._extremes", r"^\+.*level (>=|<=) (high|low)", TIES),
    Reason("gaps._Follower.__init__", r"_(virtual|lead) = .*1", SHIFT),
    Reason("gaps._Follower.__init__", r"_(lowest|highest) = \[1\]", UNTIL_SET),
    Reason("monitor.BoundMonitor.__init__", r"_virtual = 1", SHIFT),
    Reason("monitor.BoundMonitor._meet", r"_served\[client\] = 1", SHIFT),
    Reason("monitor.BoundMonitor._key", r"^\+.*first <= second", "A client makes no pair with itself."),
    Reason(
        "deficit.DeficitAccount.rounds_due",
        r"balance > 1 else",
        "With q = 1 the formula gives 0 as well.",
    ),
    Reason(
        "prefixes.chain_hashes",
        r"(and False else array|array\(.I.)",
        "Bytes given to an array of integers stay as they are, and token numbers are not negative.",
    ),
    Reason(
        "prefixes.chain_hashes",
        r"- width \+ 2",
        "Offsets are multiples of four bytes: none is one beyond the end.",
    ),
    Reason(
        "refill.RefillSchedule._bucket",
        r"_SPARE_ROUNDS",
        "When rounds that are no longer needed are thrown away decides about memory, not about offers.",
    ),
    Reason(
        "ledger.Ledger.all_backlogged_services", r"until\(None\)", "As the end of a slice None means the same."
    ),
    Reason(
        "prefixes.AskedPrefixes.*",
        r"^\+.*_pass (= 1|-= 1|\+= 2)",
        "Passes are only compared with each other: any step that changes the number will do.",
    ),
    Reason(
        "prefixes.AskedPrefixes.__init__",
        r"_to_ask = (None|1)",
        "Before the first refresh everybody has just been asked for, and is not asked for again.",
    ),
    Reason(
        "radix.RunTree._clear_stops",
        r"^\+.*depth >= above",
        "Who stands just at the cut is placed again where it stood: it costs time.",
    ),
    Reason("refill.Bucket.best", r"^\+.*top <= best", TIES),
    Reason(
        "refill.RefillSchedule.overdraft",
        r"^\+.*due >= view_round",
        "The bucket of that round is asked before, and has nobody to offer then.",
    ),
    Reason(
        "refill.RefillSchedule.go_back",
        r"Bucket\(None\)",
        "The round of the present bucket is set when it is put away, and not read before.",
    ),
    Reason("vtc.VTC._offer_account", r"^\+.*offer\[0\] >= account.balance", "The same offer is made again: time."),
    Reason("vtc.VTC._offer_at", r"stamp (-= 1|\+= 2)", "Stamps are only compared for equality."),
    Reason("vtc._Counter.__init__", r"stamp = 1", "Stamps are only compared with each other."),
    Reason("vtc.VTC.reweigh", r"^\+.*factor >= 1", "Multiplying by 1 changes nothing."),
    Reason(
        "vtc.VTC._offer_account", r"^\+\s*offer = None", "An offer that is made again is the same: it costs time."
    ),
    Reason(
        "vtc.VTC._canonical_state", r"default=(None|1)", "Without accounts there is nothing to subtract it from."
    ),
    Reason("ledger.Ledger._move_on", r"^\+.*at <= self._now", "It is called only when time has changed."),
    Reason(
        "round_robin.next_slot",
        r"^\+.*found \| -found",
        "x | -x is the lowest bit with a minus sign, which `bit_length` does not see.",
    ),
    Reason(
        "preble.Preble._explore",
        r"^\+.*_load\(slot\) > least",
        "A worker whose load alone is as much costs as much at least, and the first of equals is taken: time.",
    ),
    Reason(
        "preble.Preble._eviction_cost",
        r"^\+.*needed < 0",
        "To evict no blocks costs nothing by the formula as well.",
    ),
    Reason("worker_index.ExactIndex.stored", r'^\+.*held\[key\] = ""', KEYS_ONLY),
    Reason(
        "worker_index.ExactIndex.stored",
        r"^\+.*(before: .* = -2|after = (None|1))",
        UNTIL_SET + " No mask is negative.",
    ),
    Reason(
        "worker_index.ExactIndex._drop",
        r"^\+.*before, after = (-2, 0|-1, (1|None))",
        UNTIL_SET + " No mask is negative.",
    ),
    Reason(
        "worker_index.ExactIndex._drop",
        r"^\+.*before, after = \+1, 0",
        "The mask 1 is that of slot 0 alone: without it 0 is left, just what stands there.",
    ),
    Reason("central_pool.CentralPool._leave_queue", r"^\+.*queued = None", FALSY),
    Reason("d2lpm.D2LPM.*", r'^\+.*_idle\[client\] = ""', KEYS_ONLY),
    Reason(
        "d2lpm.D2LPM._catch_up",
        r"^\+.*joins_seen <= ",
        "Then it has seen all of them, and nothing is left to do: time.",
    ),
    Reason("shared_ledger.SharedLedger.__init__", r"^\+.*(_next_seq|next_serial) = 1$", NUMBERS),
    Reason("shared_ledger.SharedLedger.enter", r"^\+.*_next_seq \+= 2", NUMBERS),
    Reason(
        "shared_ledger.SharedLedger.enqueue", r"^\+.*entry.seq <= next", "Two requests have different numbers."
    ),
    Reason("ledger_view.LedgerView._write_receipt", r"^\+.*next_serial (-= 1|\+= 2)", NUMBERS),
    Reason(
        "ledger_view.LedgerView.plan", r"^\+.*reserve=1", "The receipt is nobody's, and no charge depends on it."
    ),
    Reason(
        "routing.Router.*",
        r"^\+\s*def ",
        "The interface is never called: who implements it has defaults of its own.",
    ),
    Reason("refill_watch.RefillWatch.queued", r"^\+.*waiting -= change", "Only whether it is 0 is looked at."),
    Reason(
        "hashing.hash64", r"^\+.*digest\(\), \)", "From Python 3.11 on the order of bytes is this one unless said."
    ),
    Reason(
        "d2lpm.D2LPM._joined",
        r"^\+.* >= _JOINS_KEPT",
        "When joins are forgotten decides about memory, not about credit.",
    ),
    Reason(
        "run_index.ApproximateIndex._push",
        r"^\+.*len\(held.ages\) (>=|> 2 \* held.runs - |> 2 / |> 3 )",
        "When entries that are out of date are thrown away decides about memory, not about what is held.",
    ),
    Reason("workers.Workers.join", r"^\+.*_order.append\((None|1)\)", UNTIL_SET),
    Reason("workers.Workers.load", r"^\+.*_order \+= \[1\]", UNTIL_SET),
    Reason(
        "workers.Workers.load", r"^\+.*slot (\+ 1 \+|\+ 2 -) len", "More free slots at the end make no difference."
    ),
    Reason("workers.Workers.dispatched", r"^\+.*turn \+= 2", "Turns are only compared with each other."),
    Reason("workers.Workers.least_loaded", r"^\+.*and False", "The least of one is that one: time."),
    Reason("deficit.DeficitAccount.committed", r"^\+.*outstanding >= 0", "Nothing outstanding costs nothing."),
    Reason(
        "dlpm.DLPM._mark",
        r"^\+.*account.bucket is bucket_before",
        "Within a round there is nothing to go back to, and whoever is placed anew leaves where it stood.",
    ),
    Reason(
        "heap.LazyHeap._move_some",
        r"^\+\s*if old:",
        "When the next sweep begins decides about memory and time.",
    ),
    Reason("run_index.ApproximateIndex.*", r"^\+.*_dispatch (= 1|\+= 2)", "Dispatches are only compared."),
    Reason("workers.Workers.*", r"^\+.*turn (= 1|\+= 2)", "Turns are only compared with each other."),
    Reason("base.BasePolicy.*", r"^\+.*arrival=None\)", FALSY),
    Reason(
        "base.BasePolicy.preempt", r"^\+\s*match = 1 if keep_hold", "What the host resumes itself does not wait."
    ),
    Reason(
        "base.BasePolicy.canonical", r"^\+.*in WAITING else 1,", "A constant, whatever it is, tells nothing apart."
    ),
    Reason("dlpm.DLPM.plan", r"^\+.*_price\(None, extend\)", "DLPM asks everybody the same price."),
    Reason(
        "dlpm.DLPM._open_account", r"^\+.*in self._table else 1$", "The least of 0 and 1 is 0, as that of 0 and 0."
    ),
    Reason("dlpm.DLPM._place", r"^\+\s*return True", "An account without a bucket offers nothing, asked or not."),
    Reason(
        "dlpm.DLPM._place",
        r"^\+\s*(reach = (None|1)$|if rounds or )",
        "Without overdraft, and where a gate is open, it only divides a bucket's heap: all of them are looked at.",
    ),
    Reason(
        "dlpm.DLPM._stays",
        r"^\+\s*(return credit > 1|before = refills \+|return credit < -before|return .* < slack - before)"
        r"|^\+.*credit <= \+refills",
        "No is always right: it only sends the account through the whole calculation.",
    ),
    Reason(
        "dlpm.DLPM._spend_output",
        r"^\+.*is not None or not self._stays",
        "Who stays is placed where it stood: time.",
    ),
    Reason("foresight.Foresight.__init__", r"^\+\s*self._silent = 1", NUMBERS),
    Reason("foresight.Foresight._next", r"^\+\s*self._silent (-= 1|\+= 2)", "The numbers only have to differ."),
    Reason(
        "foresight.Foresight.best", r"^\+.*or True else None", "Nobody is left in there, so that nobody is best."
    ),
    Reason("foresight.Foresight.best", r"^\+.*<= \(own\[1\]", "No two requests arrived at the same place."),
    Reason("foresight.Foresight.best", r"^\+.*offer\[4\].key", WORDING),
    Reason("foresight.Foresight.admit", r"^\+\s*entry.stage = None", "Only that it is not queued is looked at."),
    Reason(
        "heap.LazyHeap._sweep",
        r"^\+.*(>= _AT_ONCE|, 3 \* len)",
        "When and how stale entries are thrown away decides about memory and time.",
    ),
    Reason("lane.Lane.mark", r"^\+.*_oldest_asked = None", FALSY),
    Reason("lane.Lane.mark", r"^\+.*_oldest_asked = True", "An entry that is there twice costs memory and time."),
    Reason("lane.Lane.take_back", r"WITHOUT PATIENCE", WORDING),
    Reason("radix.Follower.__init__", r"^\+.*= (\"\"|None|1)$", UNTIL_SET),
    Reason(
        "radix.RunTree.__init__",
        r"^\+.*Run\(\(\), 1, 0",
        "Where the root begins is not looked at: it has no blocks.",
    ),
    Reason("radix.RunTree.*", r"^\+\s*assert start <= end", "The index hands in no empty runs."),
    Reason(
        "radix.RunTree.*",
        r"^\+\s*(above = (None|.*and False else None|self._ends.get\(None\).*)"
        r"|run = (None|self._ends.get\(None\))|self._ends\[.*\] = None)$",
        "Where no end is known the tree is walked from its root: time.",
    ),
    Reason("radix.RunTree.add", r"^\+\s*if depth <= start", "What is put aside there is taken back at once."),
    Reason("radix.RunTree.add", r"^\+.*or True else \(\)", "There is nothing to take out of nothing: time."),
    Reason(
        "radix.RunTree.displace", r"^\+\s*stop.members.pop\(id, \)", "Whoever stands there is among its members."
    ),
    Reason(
        "radix.RunTree.displace",
        r"^\+\s*(stop.run|follower.stop) = \"\"",
        "Nobody stands in that place any more, and it is replaced before it is asked for.",
    ),
    Reason("*", r"^\+\s*middle = \(low \+ high \+ 2\)", "The search divides elsewhere, and finds the same: time."),
    Reason("refill.Standing.__init__", r"^\+\s*self.(stuck|reach|offer.*) = ", UNTIL_SET),
    Reason("refill.*", r"^\+\s*(self|account).stamp (= 1|\+= 2)", "Stamps are only compared with each other."),
    Reason("refill.RefillSchedule.__init__", r"^\+.*Bucket\((None|1)\)", UNTIL_SET),
    Reason(
        "refill.RefillSchedule.place",
        r"^\+\s*(found = |return True)",
        "Who is taken out, and put back where it stood, makes the same offer again: time.",
    ),
    Reason("snapshot.load_entry", r"^\+.*Entry\(.*None", UNTIL_SET),
    Reason("accounts.Account.__init__", r"^\+.*balance: int = 1", "Whoever opens an account says what is in it."),
    Reason(
        "accounts.AccountTable._new",
        r"^\+\s*own = len\(self.by_key\) \+",
        "While there is a shared account the table is full, counted either way.",
    ),
    Reason("base.BasePolicy.*", r"^\+\s*self._next_(seq|serial) (= 1|\+= 2|-= 1)", NUMBERS),
    Reason("base.BasePolicy._enter_running", r"^\+\s*entry.advanced = None", FALSY),
    Reason("dlpm.DLPM._stays", r"^\+.*account.outstanding >= 0", "Nothing outstanding takes nothing off."),
    Reason(
        "refill.Standing.__init__",
        r"^\+\s*self.rank = ",
        "Read only where something is offered.",
    ),
    Reason("dlpm.DLPM.validate", r"^\+.*>= 0, f", "A round to come is never the present one."),
    Reason(
        "dlpm.DLPM.validate",
        r"^\+.*output, None\) == 0",
        "Who is not due has a counter above zero under either gate.",
    ),
    Reason(
        "heap.LazyHeap.push",
        r"^\+\s*elif len\(self._items\) > ",
        "When stale entries are thrown away decides about memory and time.",
    ),
    Reason("heap.LazyHeap.push", r"^\+\s*if self._front and item <= self._front", TIES),
    Reason(
        "heap.LazyHeap.*",
        r"^\+\s*(if len\(self._front\) < _MOST|if len\(items\) >= _AT_ONCE and|while items and len\(front\) <= )",
        "How many entries stand in front is a choice.",
    ),
    Reason("prefixes.PrefixIndex.*", r"^\+\s*(end = length )?if end is None or end >= (last.)?length", TIES),
    Reason("prefixes.PrefixIndex.*", r"^\+\s*if (end >= start|start <= end):", TIES),
    Reason("prefixes.PrefixIndex.evicted", r"^\+.*cached=None", FALSY),
    Reason(
        "lane.*",
        r"^\+\s*(self|entry).times_(entered|ranked) (= 1|\+= 2|-= 1)",
        "These numbers are only compared with each other.",
    ),
    Reason("radix.Aside.take", r"^\+.*islice\(group, None\)", "All of a group at a time, instead of some: time."),
    Reason(
        "prefixes.PrefixIndex.*",
        r"^\+\s*last = None",
        "Nothing is joined with what came before it: time.",
    ),
    Reason("lane.Entry.__init__", r"^\+\s*self.(stage = None|match = (None|1))", UNTIL_SET),
    Reason("lane.Entry.__init__", r"^\+\s*self.paid = None", FALSY),
    Reason("lane.Lane.__init__", r"^\+\s*self._oldest_asked = (None|True)", UNTIL_SET),
    Reason(
        "prefixes.PrefixIndex.__init__",
        r"^\+.*per_look: int = 17",
        "How many are looked at each time is a choice.",
    ),
    Reason(
        "radix.RunTree._walk",
        r"^\+\s*if run.end >= end",
        "The search then finds the end of the run itself: time.",
    ),
)
