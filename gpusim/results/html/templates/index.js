// Sorts and filters the table of runs. It is whole without this; nothing is fetched or stored.
"use strict";
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = document.getElementById("filter");
  const outcome = document.getElementById("outcome");
  const shown = document.getElementById("shown");

  // A number to sort by where the words are for people ("4 TiB"), else the words.
  function key(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.n ?? cell.textContent.trim();
    if (text === "" || text === "\u2013") return null;
    const number = Number(text);
    return Number.isNaN(number) ? text : number;
  }

  function compare(one, other) {
    const numbers = (typeof one === "number") + (typeof other === "number");
    if (numbers === 2) return one - other;
    if (numbers === 1) return typeof one === "number" ? -1 : 1;
    return one.localeCompare(other, "en", { numeric: true });
  }

  function sort(heading, column) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sorted = rows.map((row) => [key(row, column), row]);
    sorted.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null); // always last
      return down ? compare(other, one) : compare(one, other);
    });
    body.append(...sorted.map(([, row]) => row));
  }

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, index) => {
      const fits = words.every((word) => texts[index].includes(word));
      row.hidden = !(fits && (outcome.value === "" || row.classList.contains(outcome.value)));
      count += !row.hidden;
    });
    shown.textContent = `${count} of ${rows.length} runs shown`;
  }

  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
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
