// The app: what the live page adds to the report's.

live = {
  suffix, returned, prepare, need, later, enlarge, mapLater, canMap,
  switches, featureSwitches, classNow, marks, after, afterCell, nowView, nowCard,
  classImages, featureImages, pairImages, imageLinks,
  judge, workLine, noSuspects,
  start: startApp,
};

function startApp() {
  for (const part of ["groups", "suspects", "edits", "mends"]) {
    if (about()[part]) parsed.set(`data-${part}`, about()[part]);
  }
  Object.assign(VIEWS, { samples: samplesView, sample: sampleView, upload: uploadView });
  Object.assign(TABS, { sample: "samples", upload: "samples" });
  Object.assign(KEYS, {
    z: undo, Z: redo, d: toggleDock, e: () => go("edit/now"), w: saveDialog, o: chooseFile,
    n: (event) => judged("label noise", event) || statesDialog(), c: (event) => judged("core", event), s: (event) => judged("shortcut", event), u: (event) => judged("unsure", event),
  });
  recall();
  makeDock();
  watchDrops();
  watchKeys();
  whenBack.push(() => refresh());
  // A view that was asked for while the server was gone.
  whenBack.push(() => other.querySelector(":scope > .failed") && show(current, { focus: false }));
  mapsButton.addEventListener("click", () => nextMaps());
  refresh();
  watchServer();
}

// A key that is held down judges one suspect, not all that follow.
function judged(kind, event) {
  const here = judging && current === `suspect/${judging.index}` && about().live.writable !== false;
  if (here && !event.repeat) judging.give(kind);
  return here;
}

function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.target.closest?.("input:not([type=range]), textarea, dialog")) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) undo();
    else if (key === "y" || (key === "z" && event.shiftKey)) redo();
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "h") nextMaps(); });
  // A link that opens in another tab, or is copied, takes the state along.
  document.addEventListener("pointerdown", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (link && (event.button || event.ctrlKey || event.metaKey || event.shiftKey)) {
      const route = link.getAttribute("href").slice(1).replace(/!%7B.*$/, "");
      link.setAttribute("href", address(route));
      setTimeout(() => link.setAttribute("href", `#${route}`), 2000);
    }
  }, true);
}
