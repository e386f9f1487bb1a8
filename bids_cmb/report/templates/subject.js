/* The subject page: sorting cards, and the review that is kept in this browser and saved as a table. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const scans = Object.fromEntries(data.scans.map((scan) => [scan.key, scan]));
  const cards = all(".card[data-id]");
  if (!data.scans.length) return;

  /* ---- the state: verdicts and notes by place, missed microbleeds, scans read through ---- */
  const KEY = `bids_cmb:review:${data.key}`;
  const blank = () => ({ marks: {}, missed: [], read: {} });
  let state = Object.assign(blank(), Store.get(KEY));
  let unsaved = false;
  const keep = () => {
    unsaved = true;
    if (!Store.set(KEY, state)) byId("storage-note").hidden = false;
    show();
  };
  const mark = (card) => state.marks[card.dataset.id] || { verdict: "", notes: "" };
  const setMark = (card, change) => {
    const next = Object.assign({ verdict: "", notes: "" }, mark(card), change);
    if (next.verdict || next.notes) state.marks[card.dataset.id] = next;
    else delete state.marks[card.dataset.id];
    keep();
  };

  /* ---- drawing the state ---- */
  const show = () => {
    let done = 0;
    for (const card of cards) {
      const { verdict, notes } = mark(card);
      card.dataset.verdict = verdict;
      if (verdict) done += 1;
      all("input[type=radio]", card).forEach((radio) => { radio.checked = radio.value === verdict; });
      const area = card.querySelector("textarea");
      if (area.value !== notes) area.value = notes;
    }
    byId("progress").textContent = cards.length ? `${done} of ${cards.length} reviewed` : "";
    all("[data-read]").forEach((box) => { box.checked = Boolean(state.read[box.dataset.read]); });
    const list = byId("missed-list");
    list.replaceChildren(...state.missed.map((one, number) => {
      const item = document.createElement("li");
      const text = document.createElement("span");
      text.textContent = `${scans[one.scan] ? scans[one.scan].name : "Another scan"}: ${[one.x, one.y, one.z].join(", ")} mm${one.notes ? ` (${one.notes})` : ""} `;
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "Remove";
      remove.setAttribute("aria-label", `Remove missed microbleed ${number + 1}`);
      remove.addEventListener("click", () => { state.missed.splice(number, 1); keep(); });
      item.append(text, remove);
      return item;
    }));
    if (!state.missed.length) list.innerHTML = "<li class='muted'>None added.</li>";
    all(".card [data-adopt]").forEach((button) => {
      const card = button.closest(".card");
      const adopted = adoptedBy(card) >= 0;
      button.setAttribute("aria-pressed", adopted);
      button.textContent = adopted ? "Counted as a microbleed" : "Count as a microbleed";
    });
    drawPicked();
  };

  /* ---- sort and filter ---- */
  const orders = {
    probability: (a, b) => b.dataset.probability - a.dataset.probability || a.dataset.index - b.dataset.index,
    size: (a, b) => b.dataset.size - a.dataset.size || a.dataset.index - b.dataset.index,
    region: (a, b) => a.dataset.region - b.dataset.region || a.dataset.index - b.dataset.index,
  };
  const arrange = (bar) => {
    const list = byId(bar.dataset.cards);
    const wanted = bar.querySelector("[data-filter]").value;
    const own = all(":scope > .card", list).sort(orders[bar.querySelector("[data-sort]").value]);
    let shown = 0;
    for (const card of own) {
      card.hidden = Boolean(wanted) && (wanted === "open" ? Boolean(mark(card).verdict) : card.dataset.certainty !== wanted);
      shown += card.hidden ? 0 : 1;
    }
    list.append(...own);
    bar.querySelector("[data-shown]").textContent = shown < own.length ? `${shown} of ${own.length} shown` : "";
  };
  all("[data-cards]").forEach((bar) => bar.addEventListener("change", () => arrange(bar)));
  // A link to a card that a filter hides, or that is folded away, brings it back.
  const reveal = () => {
    const card = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (!card || !card.classList.contains("card")) return;
    card.hidden = false;
    const folded = card.closest("details");
    if (folded) folded.open = true;
    card.scrollIntoView({ block: "center" });
    card.focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);

  /* ---- marking ---- */
  const VERDICTS = ["", "cmb", "not_cmb", "unsure"];
  for (const card of cards) {
    const radios = all("input[type=radio]", card);
    radios.forEach((radio) => {
      radio.addEventListener("change", () => setMark(card, { verdict: radio.value }));
      // A second click on the chosen one takes it back.
      radio.addEventListener("click", () => { if (radio.dataset.was === "yes") setMark(card, { verdict: "" }); });
      radio.closest("label").addEventListener("pointerdown", () => { radio.dataset.was = radio.checked ? "yes" : ""; });
      radio.addEventListener("keydown", () => { radio.dataset.was = ""; });
    });
    card.querySelector("textarea").addEventListener("input", (event) => setMark(card, { notes: event.target.value }));
  }
  document.addEventListener("keydown", (event) => {
    const typing = /^(SELECT|TEXTAREA)$/.test(event.target.tagName) || (event.target.tagName === "INPUT" && event.target.type !== "radio");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const here = event.target.closest(".card");
    if (event.key === "j" || event.key === "k") {
      const open = all(".card").filter((card) => card.offsetParent !== null);
      const at = here ? open.indexOf(here) : -1;
      const next = open[event.key === "j" ? at + 1 : Math.max(at - 1, 0)];
      if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "center" }); }
    } else if (here && here.dataset.id && "0123".includes(event.key)) {
      setMark(here, { verdict: VERDICTS[Number(event.key)] });
      event.preventDefault();
    }
  });

  /* ---- missed microbleeds ---- */
  const round2 = (value) => Math.round(value * 100) / 100;
  const addMissed = (scan, [x, y, z], notes) => {
    state.missed.push({ scan, x: round2(x), y: round2(y), z: round2(z), notes });
    keep();
  };
  const adoptedBy = (card) => {
    const place = card.querySelector("[data-adopt]").dataset.position.split(" ").map(Number).map(round2);
    return state.missed.findIndex((m) => m.scan === card.dataset.scan && m.x === place[0] && m.y === place[1] && m.z === place[2]);
  };
  all("[data-adopt]").forEach((button) => button.addEventListener("click", () => {
    const card = button.closest(".card");
    const at = adoptedBy(card);
    if (at >= 0) { state.missed.splice(at, 1); keep(); return; }
    addMissed(card.dataset.scan, button.dataset.position.split(" ").map(Number), `rejected candidate ${card.dataset.index}`);
  }));
  const form = byId("add-missed");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = ["x", "y", "z"].map((name) => Number(form.elements[name].value.trim().replace(",", ".").replace("\u2212", "-") || NaN));
    const problem = byId("missed-error");
    if (!values.every(Number.isFinite)) { problem.textContent = "Each coordinate must be a number."; return; }
    const scan = scans[form.elements.scan.value];
    const voxel = form.elements.unit.value === "voxel";
    if (!scan.image && voxel) { problem.textContent = "Without its image, this scan takes mm only."; return; }
    const place = voxel ? times(scan.image.source_affine, values) : values;
    if (scan.image) {
      const index = times(scan.image.to_voxel, place);
      if (!index.every((v, axis) => v > -1 && v < scan.image.shape[axis])) { problem.textContent = "That place lies outside the image."; return; }
    }
    problem.textContent = "";
    addMissed(scan.key, place, form.elements.notes.value.trim());
    for (const name of ["x", "y", "z", "notes"]) form.elements[name].value = "";
  });
  const pick = byId("pick");
  pick.addEventListener("click", () => {
    const on = pick.getAttribute("aria-pressed") !== "true";
    pick.setAttribute("aria-pressed", on);
    document.documentElement.dataset.picking = on ? "yes" : "";
    if (on) { const first = document.querySelector(".mosaic"); if (first) first.scrollIntoView({ block: "start" }); }
  });
  all(".mosaic .pic").forEach((figure) => figure.addEventListener("click", (event) => {
    if (pick.getAttribute("aria-pressed") !== "true") return;
    event.preventDefault();
    const mosaic = figure.closest(".mosaic");
    const scan = scans[mosaic.dataset.scan];
    const { left, top, width, height } = figure.querySelector(".frame").getBoundingClientRect();
    let across = (event.clientX - left) / width;
    if (document.documentElement.dataset.side === "neurological") across = 1 - across;
    const [x0, y0, w, h] = scan.image.frame;
    const u = x0 + across * w;
    const v = y0 + ((event.clientY - top) / height) * h;
    const slab = scan.image.slabs[all(".pic", mosaic).indexOf(figure)];
    const place = times(scan.image.affine, [scan.image.shape[0] - 0.5 - u / scan.image.zooms[0], scan.image.shape[1] - 0.5 - v / scan.image.zooms[1], slab]);
    form.elements.scan.value = scan.key;
    form.elements.unit.value = "mm";
    ["x", "y", "z"].forEach((name, axis) => { form.elements[name].value = place[axis].toFixed(1); });
    pick.click();
    form.scrollIntoView({ block: "center" });
    form.elements.notes.focus({ preventScroll: true });
  }, true));
  // Missed ones are drawn on the overview as crosses.
  const drawPicked = () => {
    all(".mosaic .missed").forEach((cross) => cross.remove());
    for (const one of state.missed) {
      const scan = scans[one.scan];
      const mosaic = scan && scan.image && document.querySelector(`.mosaic[data-scan="${scan.key}"]`);
      if (!mosaic) continue;
      const [i, j, k] = times(scan.image.to_voxel, [one.x, one.y, one.z]);
      const slab = scan.image.slabs.reduce((best, z, at) => (Math.abs(z - k) < Math.abs(scan.image.slabs[best] - k) ? at : best), 0);
      const [x0, y0, w, h] = scan.image.frame;
      const cross = document.createElement("span");
      cross.className = "missed";
      cross.textContent = "+";
      cross.style.left = `${(((scan.image.shape[0] - 0.5 - i) * scan.image.zooms[0] - x0) / w) * 100}%`;
      cross.style.top = `${(((scan.image.shape[1] - 0.5 - j) * scan.image.zooms[1] - y0) / h) * 100}%`;
      all(".flip", mosaic)[slab].append(cross);
    }
  };
  all("[data-read]").forEach((box) => box.addEventListener("change", () => { state.read[box.dataset.read] = box.checked; keep(); }));

  /* ---- the table ---- */
  const COLUMNS = ["participant_id", "session_id", "source", "index", "verdict", "x", "y", "z", "notes"];
  const clean = (text) => String(text ?? "").replace(/\s+/g, " ").trim() || "n/a";
  const table = () => {
    const lines = [COLUMNS.join("\t")];
    const add = (scan, ...cells) => lines.push([data.participant, scan.session, scan.source, ...cells].map(clean).join("\t"));
    for (const scan of data.scans) {
      for (const found of scan.findings) {
        const one = state.marks[found.id];
        if (one) add(scan, found.index, one.verdict || "n/a", ...found.position, one.notes);
      }
      for (const one of state.missed) if (one.scan === scan.key) add(scan, "n/a", "cmb", one.x, one.y, one.z, one.notes);
      if (state.read[scan.key]) add(scan, "n/a", "n/a", "n/a", "n/a", "n/a", "scan read");
    }
    return lines.join("\n") + "\n";
  };
  all("[data-save]").forEach((button) => button.addEventListener("click", () => {
    saveText(data.file, table());
    unsaved = false;
    byId("review-status").textContent = `Saved as ${data.file}.`;
  }));
  addEventListener("beforeunload", (event) => { if (unsaved && !Store.works) event.preventDefault(); });

  const load = (text) => {
    const [head, ...rows] = text.replace(/^\ufeff/, "").split(/\r?\n/).filter(Boolean).map((line) => line.split("\t"));
    if (!head || !COLUMNS.every((name) => head.includes(name))) throw new Error("This is no review table: its columns differ.");
    const next = blank();
    let other = 0;
    for (const cells of rows) {
      const row = Object.fromEntries(head.map((name, at) => [name, cells[at] === "n/a" ? "" : cells[at] || ""]));
      const scan = data.scans.find((one) => one.source === row.source);
      if (row.participant_id !== data.participant || !scan) { other += 1; continue; }
      if (row.index) {
        const found = scan.findings.find((one) => String(one.index) === row.index && String(one.position[0]) === row.x);
        if (found && (VERDICTS.includes(row.verdict))) next.marks[found.id] = { verdict: row.verdict, notes: row.notes };
        else other += 1;
      } else if (row.verdict === "cmb" && row.x !== "") {
        next.missed.push({ scan: scan.key, x: Number(row.x), y: Number(row.y), z: Number(row.z), notes: row.notes });
      } else next.read[scan.key] = true;
    }
    state = next;
    keep();
    return other;
  };
  byId("load").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    try {
      const other = load(await file.text());
      byId("review-status").textContent = `Loaded ${file.name}${other ? `; ${other} rows belong to other results and were left out` : ""}.`;
    } catch (error) { byId("review-status").textContent = error.message; }
    event.target.value = "";
  });
  byId("clear").addEventListener("click", (event) => {
    if (event.target.dataset.sure !== "yes") { event.target.dataset.sure = "yes"; event.target.textContent = "Clear: click again to confirm"; return; }
    event.target.dataset.sure = "";
    event.target.textContent = "Clear all marks";
    state = blank();
    keep();
  });

  Store.set(`${KEY}:probe`, 1);
  if (Store.works) localStorage.removeItem(`${KEY}:probe`);
  else byId("storage-note").hidden = false;
  show();
  unsaved = false;
  reveal();
})();
