// Runs between require.js and the Jupyter widget manager, both served from this book (see _ext/offline.py).
(function () {
  "use strict";
  const here = new URL(".", document.currentScript.src).href;

  // The theme's FontAwesome rewrites icons as they appear; in a widgets.Play that breaks the buttons and freezes what they drive.
  window.FontAwesomeConfig = Object.assign({}, window.FontAwesomeConfig, { observeMutations: false });

  // The manager resolves its fonts against require's base.
  requirejs.config({ baseUrl: here + "vendor/" });

  // ipywidgets 8 calls MathJax 2's Hub.Queue; the pages load MathJax 3, which replaces window.MathJax when it starts.
  const hub = {
    Queue: function (call) {
      const element = Array.isArray(call) ? call[2] : null;
      if (!element || !mathjax || !mathjax.typesetPromise) return;
      element.classList.add("tex2jax_process"); // outside of such elements the pages tell MathJax to look away
      mathjax.typesetPromise([element]);
    },
  };
  let mathjax = window.MathJax;
  const withHub = (value) => { if (value && value.version && !value.Hub) value.Hub = hub; return value; };
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => withHub(mathjax),
    set: (value) => { mathjax = value; },
  });

  // Names for a screen reader: a slider has that of its description, an icon button that of its icon, a picture that of the
  // text beside it.
  const text = (element) => (element ? element.textContent.trim() : "");
  function describe() {
    document.querySelectorAll(".jupyter-widgets .noUi-handle:not([aria-label])").forEach((handle) => {
      const label = text(handle.closest(".jupyter-widgets").querySelector(".widget-label"));
      handle.setAttribute("aria-label", label || "slider");
    });
    document.querySelectorAll(".jupyter-widgets button:not([aria-label]) > i[class*='fa-']").forEach((icon) => {
      const name = [...icon.classList].find((word) => word.startsWith("fa-"));
      if (!text(icon.parentElement)) icon.parentElement.setAttribute("aria-label", name.slice(3).replaceAll("-", " "));
    });
    document.querySelectorAll("img.widget-image:not([alt]), img.widget-image[alt='']").forEach((image) => {
      let box = image.parentElement, caption = "";
      while (box && box.closest(".jupyter-widgets, .widget-subarea") && !caption) {
        caption = text(box.querySelector(".widget-html-content, .widget-label"));
        box = box.parentElement;
      }
      image.setAttribute("alt", caption || "figure described in the text");
    });
  }
  new MutationObserver(describe).observe(document.documentElement, { childList: true, subtree: true });
})();
