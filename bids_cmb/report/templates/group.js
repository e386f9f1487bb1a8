/* The table of scans: sort, filter, save what is shown. */
"use strict";
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const MISSING = "–";
  const key = (row, column) => {
    const text = row.cells[column].textContent;
    const number = Number(text);
    return text !== "" && Number.isFinite(number) ? number : text;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  const headings = Array.from(table.tHead.rows[0].cells);
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      // What is not known stays at the end, whichever way the others go.
      const keyed = rows.map((row) => [key(row, column), row]);
      keyed.sort(([a], [b]) => (a === MISSING || b === MISSING ? (a === MISSING) - (b === MISSING) : (down ? -1 : 1) * compare(a, b)));
      keyed.forEach(([, row], place) => { rows[place] = row; });
      body.append(...rows);
    });
  });
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      if (!row.hidden) count += 1;
    }
    shown.textContent = words.length ? `${count} of ${rows.length}` : "";
  });
  const cell = (text) => {
    const clean = text.trim().replace(/\s+/g, " ");
    if (clean === MISSING || clean === "") return "n/a";
    return /^[=+@-]/.test(clean) && !Number.isFinite(Number(clean)) ? `'${clean}` : clean;
  };
  document.getElementById("save-table").addEventListener("click", () => {
    const lines = [headings, ...rows.filter((row) => !row.hidden).map((row) => Array.from(row.cells))].map((cells) => cells.map((c) => cell(c.textContent)).join("\t"));
    saveText("group_cmb_shown.tsv", `${lines.join("\n")}\n`);
  });
})();
