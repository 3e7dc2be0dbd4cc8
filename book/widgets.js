// Draws the widgets of a rendered page, with no kernel and no network. Bundled when the book is built from ipywidgets' and anywidget's own
// libraries: what the html-manager package ships for this purpose is twice as heavy, with two versions of everything.

import * as base from "@jupyter-widgets/base";
import { HTMLManager } from "@jupyter-widgets/html-manager/lib/htmlmanager";
import "@lumino/widgets/style/index.css";

import { nameSliders } from "../robustnb/widgets/lab.js";

// The widget manager asks MathJax 2's queue to typeset; the book has MathJax 3, which loads after it.
const hub = {
  Queue(task) {
    const element = Array.isArray(task) ? task[2] : undefined;
    if (element && window.MathJax.typesetPromise) window.MathJax.typesetPromise([element]);
  },
  Config() {},
  Configured() {},
};
const mathjax = (window.MathJax ??= {});
mathjax.Hub = hub;
mathjax.startup = {
  ready() {
    window.MathJax.Hub = hub;
    window.MathJax.startup.defaultReady();
  },
};

/** anywidget comes as an AMD module that wants @jupyter-widgets/base. */
function loadAnywidget() {
  let found;
  window.define = (_, factory) => { found = factory(base); };
  require("anywidget"); // an alias that the Makefile sets
  delete window.define;
  return found;
}

/** By a script tag: a page from a disk may load nothing else. */
function load(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${document.documentElement.dataset.content_root}_static/${name}`;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${script.src} cannot be loaded.`));
    document.head.append(script);
  });
}

async function render() {
  const anywidget = loadAnywidget();
  const loader = (name) => (name === "anywidget" ? Promise.resolve(anywidget) : Promise.reject(new Error(`The book does not hold ${name}.`)));
  for (const state of document.querySelectorAll('script[type="application/vnd.jupyter.widget-state+json"]')) {
    const manager = new HTMLManager({ loader });
    const held = JSON.parse(state.textContent);
    const laboratories = Object.values(held.state).filter((model) => model.state._anywidget_id === "robustnb.widgets.view.View");
    if (laboratories.length) await load("robustnb-view.js"); // their code, which all pages share
    for (const laboratory of laboratories) Object.assign(laboratory.state, window.robustnb.view);
    const models = await manager.set_state(held);
    for (const tag of document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')) {
      const model = models.find((each) => each.model_id === JSON.parse(tag.textContent).model_id);
      if (!model) continue;
      const place = document.createElement("div");
      place.className = "widget-subarea";
      tag.before(place);
      manager.display_view(await manager.create_view(model), place);
    }
  }
}

window.addEventListener("load", () => {
  new MutationObserver(() => nameSliders(document)).observe(document.body, { childList: true, characterData: true, subtree: true });
  render();
});
