/* Display settings of every page: theme, sides, outlines, picture size. Kept in this browser. */
"use strict";
const Store = {
  works: true,
  get(key) { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { this.works = false; return false; } },
};
/* A place (voxel or mm) through a 3x4 affine. */
const times = (matrix, [i, j, k]) => matrix.map((row) => row[0] * i + row[1] * j + row[2] * k + row[3]);
const saveText = (name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/tab-separated-values" }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
(() => {
  const root = document.documentElement;
  const KEY = "bids_cmb:display";
  const usual = { theme: "auto", side: root.dataset.side || "radiological", size: "m", outline: true, sharp: false, brightness: 1, contrast: 1 };
  const known = { theme: ["auto", "light", "dark"], side: ["radiological", "neurological"], size: ["s", "m", "l"] };
  const stored = Store.get(KEY) || {};
  // The side is set anew by each page: a mirrored picture must never be a surprise.
  delete stored.side;
  const now = Object.assign({}, usual, stored);
  const show = () => {
    for (const name of Object.keys(known)) {
      if (!known[name].includes(now[name])) now[name] = usual[name];
      root.dataset[name] = now[name];
      document.querySelectorAll(`[data-set="${name}"]`).forEach((b) => b.setAttribute("aria-pressed", b.dataset.value === now[name]));
    }
    for (const name of ["outline", "sharp"]) {
      root.dataset[name] = now[name] ? "on" : "off";
      document.querySelectorAll(`[data-toggle="${name}"]`).forEach((b) => b.setAttribute("aria-pressed", Boolean(now[name])));
    }
    for (const name of ["brightness", "contrast"]) {
      root.style.setProperty(`--${name}`, now[name]);
      const slider = document.getElementById(name);
      if (slider) slider.value = now[name];
    }
  };
  const change = (name, value) => { now[name] = value; Store.set(KEY, now); show(); };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) {
      document.querySelectorAll("details.menu[open]").forEach((m) => { if (!m.contains(event.target)) m.open = false; });
      return;
    }
    if (button.dataset.set) change(button.dataset.set, button.dataset.value);
    if (button.dataset.toggle) change(button.dataset.toggle, !now[button.dataset.toggle]);
    if (button.id === "reset-display") { Object.assign(now, usual); Store.set(KEY, now); show(); }
    if (button.dataset.copy) {
      const text = document.getElementById(button.dataset.copy).innerText;
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      Promise.resolve(navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject())
        .then(() => { button.textContent = "Copied"; })
        .catch(() => { document.execCommand("copy"); button.textContent = "Copied"; });
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "brightness" || event.target.id === "contrast") change(event.target.id, Number(event.target.value));
    if (event.target.dataset.layer) root.dataset[`hide${event.target.dataset.layer}`] = event.target.checked ? "" : "yes";
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll("details.menu[open]").forEach((m) => { m.open = false; m.querySelector("summary").focus(); });
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "radio") return;
    if (event.key === "o") change("outline", !now.outline);
    if (event.key === "v") change("sharp", !now.sharp);
  });
  show();
})();
