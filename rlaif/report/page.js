"use strict";
// Tables sort by a click on a head, and examples filter. Without this script all of it is still there to read.
(() => {
  const key = (row, column, figures) => {
    const cell = row.cells[column];
    if (!figures) return cell.textContent.trim();
    return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
  };
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function sortBy(table, column) {
    const head = table.tHead.rows[0].cells[column];
    const figures = head.classList.contains("figures");
    // Figures from the largest first, words from A.
    const first = figures ? "descending" : "ascending";
    const other = figures ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", each === head ? order : "none");
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column, figures), row]);
    rows.sort(([x], [y]) => {
      // What is not defined stands last either way.
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (figures ? x - y : words.compare(x, y));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sortBy(table, column));
    });
  }

  for (const group of document.querySelectorAll(".examples")) {
    const form = group.querySelector(".filters");
    const number = group.querySelector(".count .number");
    const cases = [...group.querySelectorAll(".example")].map((element) => ({
      element,
      picks: new Set(element.dataset.picks.split(" ")),
      text: null,
    }));
    const apply = () => {
      const wanted = [...form.querySelectorAll("select")]
        .filter((each) => each.value !== "")
        .map((each) => `${each.dataset.filter}:${each.value}`);
      const search = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const each of cases) {
        if (search.length && each.text === null) each.text = each.element.textContent.toLowerCase();
        const fits = wanted.every((pick) => each.picks.has(pick)) && search.every((word) => each.text.includes(word));
        each.element.hidden = !fits;
        shown += fits;
      }
      number.textContent = shown === cases.length ? shown.toLocaleString("en") : `${shown} of ${cases.length}`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    // A browser may have kept what was chosen before the page was loaded again.
    apply();
  }
})();
