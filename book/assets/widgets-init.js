// Between require.js and the widget manager: where the book keeps what they load, with no network.
(function () {
  var root = new URL((document.documentElement.dataset.content_root || "./") + "_static/", document.baseURI).href;
  window.requirejs.config({ paths: { anywidget: root + "anywidget", "@jupyter-widgets/html-manager/dist": root } });

  // The widget manager asks MathJax 2's queue to typeset; the book has MathJax 3, which loads after it.
  var hub = {
    Queue: function (task) {
      var element = Array.isArray(task) ? task[2] : undefined;
      if (element && window.MathJax.typesetPromise) window.MathJax.typesetPromise([element]);
    },
    Config: function () {},
    Configured: function () {},
  };
  var mathjax = (window.MathJax = window.MathJax || {});
  mathjax.Hub = hub;
  mathjax.startup = {
    ready: function () {
      window.MathJax.Hub = hub;
      window.MathJax.startup.defaultReady();
    },
  };
})();
