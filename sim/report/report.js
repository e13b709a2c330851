"use strict";
// Tables are sorted by their column heads: up, down, and back to the order they came in.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const asWritten = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const next = { none: "ascending", ascending: "descending", descending: "none" };

  const compared = (a, b, column) => {
    const [one, other] = [a.cells[column], b.cells[column]];
    const [x, y] = [one.dataset.key, other.dataset.key];
    if (x !== undefined && y !== undefined) return Number(x) - Number(y);
    if (x !== undefined || y !== undefined) return x === undefined ? Infinity : -Infinity;
    return one.textContent.localeCompare(other.textContent, "en", { numeric: true });
  };

  const sort = (head, column) => {
    const order = next[head.getAttribute("aria-sort")];
    for (const each of heads) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const sign = order === "descending" ? -1 : 1;
    const rows = asWritten.slice();
    if (order !== "none") {
      rows.sort((a, b) => {
        const found = compared(a, b, column);
        return Number.isFinite(found) ? sign * found : Math.sign(found); // unknown ones stay last
      });
    }
    body.append(...rows);
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(head, column));
  });
}

// What is folded on the screen is printed too.
window.addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
