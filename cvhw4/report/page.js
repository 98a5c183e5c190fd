"use strict";
{
  const root = document.documentElement, kept = "cvhw4-theme";
  try { // before anything is painted
    const theme = localStorage.getItem(kept);
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch { /* storage is off: the system's setting holds */ }

  const value = (text) => {
    const minutes = /^(\d+)m(\d+)s$/.exec(text);
    if (minutes) return 60 * minutes[1] + +minutes[2];
    if (/^\d{4}-\d\d-\d\d/.test(text)) return NaN; // a date is sorted as text
    const number = /^(<?)\s*[±[]?\s*([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)/.exec(text);
    return number ? Number(number[2].replaceAll(",", "")) - (number[1] ? 1e-9 : 0) : NaN;
  };

  const sort = (table, column, sign) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
    const filled = rows.filter(({ text }) => text && text !== "-");
    const numbers = filled.every(({ text }) => !isNaN(value(text)));
    const order = numbers
      ? (a, b) => value(a.text) - value(b.text)
      : (a, b) => a.text.localeCompare(b.text, "en", { numeric: true });
    filled.sort((a, b) => sign * order(a, b));
    body.append(...filled.map(({ row }) => row), ...rows.filter((one) => !filled.includes(one)).map(({ row }) => row));
  };

  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down ? -1 : 1);
      });
    });
  };

  const folding = (box) => { // gives what shows as many of a table's columns as fit, the first ones, or all
    const table = box.querySelector("table"), names = [...table.tHead.rows[0].cells];
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    box.after(button);
    let all = false;
    const show = (count) => {
      for (const row of table.rows) [...row.cells].forEach((cell, i) => { cell.hidden = i >= count; });
    };
    const fit = (narrow) => {
      let count = names.length;
      show(count);
      table.classList.remove("tight");
      table.classList.toggle("tight", !narrow && box.scrollWidth > box.clientWidth);
      while (!narrow && !all && count > 2 && box.scrollWidth > box.clientWidth) show(--count);
      const folded = names.slice(count).map((name) => name.textContent);
      button.hidden = !folded.length && !all;
      button.textContent = all ? "Fewer columns" : `More columns: ${folded.join(", ")}`;
    };
    button.addEventListener("click", () => {
      all = !all;
      fit(false);
    });
    return fit;
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("main table").forEach(sortable);

    const wide = matchMedia("(min-width: 64rem)"), contents = document.querySelector("nav details");
    const tables = [...document.querySelectorAll(".table")].map(folding);
    const fit = () => tables.forEach((one) => one(!wide.matches)); // narrow screens scroll tables
    addEventListener("resize", fit);
    document.addEventListener("toggle", fit, true); // what was folded had no width
    fit();
    const fold = () => { contents.open = wide.matches; };
    wide.addEventListener("change", fold);
    fold();

    const system = matchMedia("(prefers-color-scheme: dark)"), toggle = document.getElementById("theme");
    const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
    const name = () => { toggle.textContent = dark() ? "Light page" : "Dark page"; };
    toggle.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try { localStorage.setItem(kept, root.dataset.theme); } catch { /* it holds until the page is closed */ }
      name();
    });
    system.addEventListener("change", name);
    name();
    toggle.hidden = false;
  });

  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("main details")) folded.open = true;
  });
}
