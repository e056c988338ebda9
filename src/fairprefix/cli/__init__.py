"""Commands of the `fairprefix` program, one thin file each."""
