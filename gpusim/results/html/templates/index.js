// Sorts and filters the table of runs. The table is complete without this script, which loads and
// stores nothing.
"use strict";
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const headings = Array.from(table.tHead.rows[0].cells);
  const rows = Array.from(body.rows);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = document.getElementById("filter");
  const outcome = document.getElementById("outcome");
  const shown = document.getElementById("shown");

  function key(row, column) {
    const cell = row.cells[column];
    if ("number" in cell.dataset) return Number(cell.dataset.number);
    return cell.textContent.trim() || null;
  }

  // Numbers come before texts.
  function compare(one, other) {
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
  }

  function sort(heading, column) {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const cell of headings) cell.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const sorted = rows.map((row) => [key(row, column), row]);
    sorted.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null); // always last
      return descending ? compare(other, one) : compare(one, other);
    });
    body.append(...sorted.map(([, row]) => row));
  }

  function show() {
    const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, index) => {
      const fits = terms.every((term) => texts[index].includes(term));
      row.hidden = !(fits && (outcome.value === "" || row.classList.contains(outcome.value)));
      count += !row.hidden;
    });
    shown.textContent = `${count} of ${rows.length} runs shown`;
  }

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.classList.add("sorts");
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(heading, column));
  });
  filter.addEventListener("input", show);
  outcome.addEventListener("change", show);
  document.querySelector(".controls").hidden = false;
  show();
})();
