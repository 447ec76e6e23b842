// A click on a head sorts its table: by number where all cells begin with one, else as text; what is missing comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const rows = [...table.tBodies[0].rows];
    const text = row => row.cells[column].textContent;
    const number = row => parseFloat(text(row));
    const absent = row => ["", "missing"].includes(text(row));
    const numeric = rows.every(row => absent(row) || !Number.isNaN(number(row)));
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    rows.sort((a, b) => absent(a) - absent(b)
      || sign * (numeric ? number(a) - number(b) : text(a).localeCompare(text(b), "en")) || 0);
    table.tBodies[0].append(...rows);
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  }));
}
