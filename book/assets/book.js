// What the theme and its extensions leave undone, for the eye and for readers with a keyboard or a screen reader.

/** @param {string} selector @returns {NodeListOf<HTMLElement>} */
const all = (selector) => document.querySelectorAll(selector);

/** Puts pieces of a text, with something between them, in its place. @param {Text} text @param {(string | Node)[]} pieces */
function replace(text, pieces) {
  if (pieces.length > 1) text.replaceWith(...pieces);
}

function namesThatAreRead() {
  // A name that hides the visible words: "Show code cell source", "Search Ctrl+K".
  for (const named of all("summary[aria-label], .search-button-field[aria-label]")) named.removeAttribute("aria-label");
  // A list needs items; and what sphinxcontrib-bibtex calls them is out of use.
  for (const entry of all('[role="doc-biblioentry"]')) entry.setAttribute("role", "listitem");
}

/** No line begins with the comma behind a formula, or ends with the bracket before it: they stand in its box (book.css). */
function punctuation() {
  for (const formula of all(".bd-article span.math")) {
    const [before, behind] = [formula.previousSibling, formula.nextSibling];
    const opens = before instanceof Text && before.data.match(/[(\[“]+$/);
    const closes = behind instanceof Text && behind.data.match(/^(?:-[a-z]+)?(?:’s|[,.;:!?)\]’”])*/);
    if (opens) formula.prepend(before.splitText(opens.index));
    if (closes?.[0]) {
      behind.splitText(closes[0].length);
      formula.append(behind);
    }
  }
}

/** A long name in code breaks between its words. */
function namesInCode() {
  for (const code of all(".bd-article :not(pre) > code")) {
    const walk = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
    const names = [];
    while (walk.nextNode()) names.push(/** @type {Text} */ (walk.currentNode));
    for (const name of names) {
      const words = name.data.split(/(?<=[a-z\d)](?:[_(]|\.(?!py))|::)(?=[a-z])/i);
      replace(name, words.flatMap((word, i) => (i ? [document.createElement("wbr"), word] : [word])));
    }
  }
}

/** A start that has its name in code, as "m^-1.5", is written as in the text. */
function starts() {
  for (const cell of all(".cell_output :is(td, th, p, li)")) {
    for (const text of [...cell.childNodes].filter((node) => node instanceof Text)) {
      const parts = text.data.split(/(?<=\bm)\^-([\d.]*\d)/);
      replace(text, parts.map((part, i) => (i % 2 ? Object.assign(document.createElement("sup"), { textContent: `−${part}` }) : part)));
    }
  }
}

const NUMBER = /^[-+−×]?\s*\d[\d.,]*(e[-+]?\d+)?\s*%?( ± [\d.e-]+)?$/;

/** Finds the columns of numbers, and tables in which no number need break from its error. */
function numbers() {
  for (const table of document.querySelectorAll(".cell_output table.dataframe")) {
    if (!(table instanceof HTMLTableElement)) continue;
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]).map((row) => [...row.querySelectorAll("td")]);
    const heads = [...(table.tHead?.rows ?? [])].map((row) => [...row.cells]).filter((cells) => cells.every((cell) => cell.colSpan === 1));
    const columns = rows[0]?.length ?? 0;
    for (let k = 0; k < columns; k += 1) {
      const words = rows.map((row) => row[k]?.textContent?.trim() ?? "");
      if (words.some((word) => word && word !== "–" && !NUMBER.test(word))) continue;
      for (const cells of [...rows, ...heads.map((head) => head.slice(-columns))]) cells[k]?.classList.add("rnb-number");
    }
    table.classList.add("rnb-fits");
    const box = table.closest(".output, .cell_output");
    if (box && table.offsetWidth > box.clientWidth) table.classList.remove("rnb-fits");
  }
}

/** @param {Element} box */
function scrolls(box) {
  // Letters lean out of every formula in a line; but one can be longer than its line.
  if (box.matches("span.math")) return (box.querySelector("mjx-math")?.getBoundingClientRect().width ?? 0) > box.clientWidth + 1;
  const style = getComputedStyle(box);
  return (box.scrollWidth > box.clientWidth && style.overflowX !== "visible") || (box.scrollHeight > box.clientHeight && style.overflowY !== "visible");
}

/** What scrolls must be in the reach of the arrow keys: formulas, code and tables that are wider than the page. */
function whatScrolls() {
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const wide = scrolls(target);
      target.classList.toggle("rnb-long", wide && target.matches("span.math"));
      if (wide) target.setAttribute("tabindex", "0");
      else target.removeAttribute("tabindex");
    }
  });
  const boxes = "mjx-container[display], span.math, pre, .cell_output, .cell_output .output, .widget-html-content, .pst-scrollable-table-container";
  const watch = () => {
    for (const box of all(`.bd-article :is(${boxes})`)) sizes.observe(box);
  };
  watch();
  // Widgets come after this, and a slider's next picture when it is first shown. To observe a box again is to measure it again, and a
  // laboratory that trains changes the page at every frame.
  const seen = new WeakSet();
  const drawn = new MutationObserver(() => {
    for (const box of all(".bd-article .widget-html-content")) {
      if (seen.has(box)) continue;
      seen.add(box);
      sizes.observe(box);
    }
  });
  drawn.observe(document.body, { childList: true, subtree: true });
  window.MathJax?.startup?.promise?.then(watch);
}

window.addEventListener("load", () => {
  for (const mend of [namesThatAreRead, punctuation, namesInCode, starts, numbers, whatScrolls]) mend();
});
