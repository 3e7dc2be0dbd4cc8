// What the theme and its extensions leave undone for readers with a keyboard or a screen reader.

window.addEventListener("load", () => {
  // A name that hides the visible words: "Show code cell source", "Search Ctrl+K".
  for (const named of document.querySelectorAll("summary[aria-label], .search-button-field[aria-label]")) named.removeAttribute("aria-label");
  // A list needs items; and what sphinxcontrib-bibtex calls them is out of use.
  for (const entry of document.querySelectorAll('[role="doc-biblioentry"]')) entry.setAttribute("role", "listitem");
  // What scrolls must be in the reach of the arrow keys: formulas, code and tables that are wider than the page.
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const style = getComputedStyle(target);
      const scrolls = (target.scrollWidth > target.clientWidth && style.overflowX !== "visible")
        || (target.scrollHeight > target.clientHeight && style.overflowY !== "visible");
      target.toggleAttribute("tabindex", scrolls);
      if (scrolls) target.tabIndex = 0;
    }
  });
  const watch = () => {
    const boxes = "mjx-container[display], pre, .cell_output, .cell_output .output, .widget-html-content, .pst-scrollable-table-container";
    for (const box of document.querySelectorAll(`.bd-article :is(${boxes})`)) sizes.observe(box);
  };
  watch();
  window.MathJax?.startup?.promise?.then(watch);
});
