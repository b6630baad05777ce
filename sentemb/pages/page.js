"use strict";
// Every column of a table can be sorted: the header is a button, which the keyboard reaches. What is printed is open.
const numberOf = (text) => {
  const number = text.replace("−", "-").match(/[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?/i);
  return number ? Number(number[0].replaceAll(",", "")) : NaN;
};
const compare = (isNumber) => (a, b) => {
  if (!isNumber) return a.text.localeCompare(b.text);
  if (Number.isNaN(a.number) || Number.isNaN(b.number)) return 0;
  return a.number - b.number;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (!table.tHead || !body || body.rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const isAscending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      // a row that belongs to the one above moves with it
      const groups = [];
      for (const row of body.rows) {
        if (row.cells[0].classList.contains("below") && groups.length) { groups.at(-1).rows.push(row); continue; }
        const text = row.cells[column].textContent.trim();
        groups.push({ rows: [row], text, number: numberOf(text) });
      }
      const sorted = groups.filter((group) => !header.classList.contains("number") || !Number.isNaN(group.number));
      const without = groups.filter((group) => !sorted.includes(group));
      sorted.sort(compare(header.classList.contains("number")));
      if (!isAscending) sorted.reverse();
      body.append(...[...sorted, ...without].flatMap((group) => group.rows));
    });
  });
}
window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
