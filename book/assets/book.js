// What the theme and its extensions leave undone, for the eye and for readers with a keyboard or a screen reader.

window.addEventListener("load", () => {
  // A name that hides the visible words: "Show code cell source", "Search Ctrl+K".
  for (const named of document.querySelectorAll("summary[aria-label], .search-button-field[aria-label]")) named.removeAttribute("aria-label");
  // A list needs items; and what sphinxcontrib-bibtex calls them is out of use.
  for (const entry of document.querySelectorAll('[role="doc-biblioentry"]')) entry.setAttribute("role", "listitem");
  // No line begins with the comma behind a formula, or ends with the bracket before it.
  for (const formula of document.querySelectorAll(".bd-article span.math")) {
    const [before, behind] = [formula.previousSibling, formula.nextSibling];
    const opens = before instanceof Text && before.data.match(/[(\[“]+$/);
    const closes = behind instanceof Text && behind.data.match(/^(?:[,.;:!?)\]’”]+s?|-[a-z]+)/);
    if (opens) formula.prepend(before.splitText(opens.index));
    if (closes) {
      behind.splitText(closes[0].length);
      formula.append(behind);
    }
  }
  // A long name in code breaks between its words.
  for (const code of document.querySelectorAll(".bd-article :not(pre) > code")) {
    const names = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
    for (let name = names.nextNode(); name instanceof Text; name = names.nextNode()) {
      const word = name.data.search(/(?<=[a-z\d)](?:[_(]|[.](?!py))|::)[a-z]/i);
      if (word > 0) name.splitText(word).before(document.createElement("wbr"));
    }
  }
  // The blank before a link is none of it.
  for (const link of document.querySelectorAll(".solution > .admonition-title a")) {
    if (link.firstChild instanceof Text && link.firstChild.data.startsWith(" ")) {
      link.firstChild.data = link.firstChild.data.slice(1);
      link.before(" ");
    }
  }
  // A start that has its name in code, as "m^-1.5", is written as in the text.
  for (const cell of document.querySelectorAll(".cell_output :is(td, th, p, li)")) {
    for (const part of [...cell.childNodes]) {
      for (let rest = part, start = null; rest instanceof Text && (start = rest.data.match(/\bm\^-([\d.]*\d)/)); ) {
        const name = rest.splitText((start.index ?? 0) + 1);
        rest = name.splitText(start[0].length - 1);
        const power = document.createElement("sup");
        power.textContent = `−${start[1]}`;
        name.replaceWith(power);
      }
    }
  }
  // Columns of numbers, and no break within a number with its error, where there is room.
  const number = /^[-+−×]?\s*\d[\d.,]*(e[-+]?\d+)?\s*%?( ± [\d.e-]+)?$/;
  for (const table of document.querySelectorAll(".cell_output table.dataframe")) {
    if (!(table instanceof HTMLTableElement)) continue;
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]).map((row) => [...row.querySelectorAll("td")]);
    const heads = [...(table.tHead?.rows ?? [])].map((row) => [...row.cells]).filter((cells) => cells.every((cell) => cell.colSpan === 1));
    const columns = rows[0]?.length ?? 0;
    for (let k = 0; k < columns; k += 1) {
      const words = rows.map((row) => row[k]?.textContent?.trim() ?? "");
      if (words.some((word) => word && word !== "–" && !number.test(word))) continue;
      for (const cells of [...rows, ...heads.map((head) => head.slice(-columns))]) cells[k]?.classList.add("rnb-number");
    }
    table.classList.add("rnb-fits");
    const box = table.closest(".output, .cell_output");
    if (box && table.offsetWidth > box.clientWidth) table.classList.remove("rnb-fits");
  }
  // What scrolls must be in the reach of the arrow keys: formulas, code and tables that are wider than the page.
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const style = getComputedStyle(target);
      let scrolls = (target.scrollWidth > target.clientWidth && style.overflowX !== "visible")
        || (target.scrollHeight > target.clientHeight && style.overflowY !== "visible");
      if (target.matches("span.math")) {
        // Letters lean out of every formula; this one is longer than its line.
        const formula = target.querySelector("mjx-math");
        scrolls = Boolean(formula) && formula.getBoundingClientRect().width > target.clientWidth + 1;
        target.classList.toggle("rnb-long", scrolls);
      }
      target.toggleAttribute("tabindex", scrolls);
      if (scrolls) target.tabIndex = 0;
    }
  });
  const watch = () => {
    const boxes = "mjx-container[display], span.math, pre, .cell_output, .cell_output .output, .widget-html-content, .pst-scrollable-table-container";
    for (const box of document.querySelectorAll(`.bd-article :is(${boxes})`)) sizes.observe(box);
  };
  watch();
  window.MathJax?.startup?.promise?.then(watch);
});
