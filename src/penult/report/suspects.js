// Suspects: features that look like shortcuts, with the images by which a person judges them.

// What people said of a feature for a class; the class's own word counts before that for all.
function verdictOf(j, c) {
  const said = about().verdicts || [];
  return said.find((v) => v.feature === j && v.class === c) || said.find((v) => v.feature === j && v.class === null) || null;
}

function verdictMark(j, c) {
  const said = known(j) && verdictOf(j, c);
  if (!said) return null;
  const who = [said.who, said.when && said.when.slice(0, 10)].filter(Boolean).join(", ");
  return el("span", { class: `mark said-${said.verdict.replace(" ", "-")}`, title: [said.note, who].filter(Boolean).join(" · ") || null }, said.verdict);
}

const suspectName = (row) => (known(row.feature) ? `feature ${row.feature}` : `direction ${row.direction}`);
const suspectRate = (found) => `${Number((100 * found.rate).toPrecision(3))}%`;

// "+12.00 (between +3.00 and +21.00)" of a gap of accuracies.
const gapText = (gap) => (gap ? [points(gap.value), el("span", { class: "note between" }, `${points(gap.interval[0])} to ${points(gap.interval[1])}`)] : "–");

function suspectsView() {
  const found = bundle("data-suspects");
  if (!found) return live?.noSuspects() ?? missing("No suspects", "Nobody has looked for shortcuts in this run yet: penult shortcuts RUN does.");
  const rows = found.pairs.map((row, place) => ({ ...row, place }));
  const grouped = rows.some((row) => row.carries.length);
  const columns = [
    { title: "No.", value: (r) => r.place, cell: (r) => (r.shots ? el("a", { href: `#suspect/${r.place}` }, String(r.place + 1)) : String(r.place + 1)), kind: "n", hint: "worst first" },
    rows.some((r) => r.shots?.high.length) && { title: "", cell: (r) => thumbs(r.shots?.high, 3), kind: "thumbs" },
    { title: "Class", value: (r) => className(r.class).toLowerCase(), cell: (r) => classLink(r.class), kind: "who" },
    { title: "Feature", value: (r) => r.feature ?? 1e9 + r.direction, cell: (r) => (r.shots ? el("a", { href: `#suspect/${r.place}`, class: "feature" }, known(r.feature) ? String(r.feature) : `direction ${r.direction}`) : known(r.feature) ? featureLink(r.feature) : suspectName(r)), kind: "" },
    { title: "Overuse", value: (r) => r.overuse.score, cell: (r) => number(r.overuse.score), kind: "n", down: true, hint: `how many standard errors the ${things()} say that its weight for the class is too large, alone and next to those of the training` },
    { title: "By chance", value: (r) => r.overuse.q, cell: (r) => [percentSmall(r.overuse.q), r.overuse.suspect ? el("span", { class: "mark suspect" }, "suspect") : null], kind: "n", hint: "of the pairs listed up to this one, the part that is expected to be there by chance (false discovery rate)" },
    { title: "Gap in points", value: (r) => r.gap?.value ?? null, cell: (r) => gapText(r.gap), kind: "n", down: true, hint: `accuracy on the class's ${things()} where it is high less where it is low` },
    { title: "Called high, else", value: (r) => (r.pull ? r.pull.called : null), cell: (r) => (r.pull ? `${percent(r.pull.called)}, ${percent(r.pull.called_elsewhere)}` : "–"), kind: "n", down: true, hint: `${things()} of other classes that are called this class, where it is as high as in the class, and elsewhere` },
    { title: "Off", value: (r) => -r.off.overall.loss, cell: (r) => changed(r.off.overall.loss), kind: "n", hint: `change of the accuracy over all ${things()} when it is switched off for the class, in points` },
    grouped && { title: "Tells apart", value: (r) => (r.carries.length ? Math.abs(r.carries[0].auc - 0.5) : null), cell: (r) => carriesText(r.carries[0]), kind: "", down: true, hint: `the group that it tells apart best within the class: on ${aThing()} of the group it is higher, or lower, than on another one in this part of all pairs; 50% is chance` },
    { title: "Verdict", value: (r) => (known(r.feature) && verdictOf(r.feature, r.class)?.verdict) || null, cell: (r) => verdictMark(r.feature, r.class), kind: "" },
  ].filter(Boolean);
  const matches = (row, query) => !query || className(row.class).toLowerCase().includes(query) || String(row.feature ?? "") === query;
  const surely = !known(found.n_compared) ? "" : found.n_suspects
    ? `${plural(found.n_suspects, "pair is a suspect", "pairs are suspects")}: at most ${suspectRate(found)} of them are expected to be there by chance.`
    : `For none of them is the evidence enough to be called a suspect with at most ${suspectRate(found)} by chance; the list still says where to look first.`;
  return {
    title: "Suspects",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Suspects"),
        el("p", null, `Features that may be shortcuts: their weight for a class is too large for the ${count(found.n_samples)} ${found.part === "eval" ? "evaluation" : "analysed"} ${things()}${known(found.n_compared) ? `, and more so than for the ${count(found.n_compared)} ${things()} of the training` : ""}. ${rows.length ? `${count(found.n_pairs)} pairs of a class and a feature were looked at. ${surely} ` : ""}Only a person can say whether a feature sees ${theSubject()}: look at the ${things()} of the first ones.`),
        found.notes.map((note) => el("p", { class: "note" }, `${note[0].toUpperCase()}${note.slice(1)}.`))),
      found.pooled ? pooledSection(found, rows.length > 0) : null,
      live?.workLine(found),
      rows.length ? [found.pooled ? el("h2", { class: "apart" }, "Single pairs") : null, table("suspects", columns, rows, matches, "Filter by class or feature")] : null,
    ],
  };
}

// Features tested over all classes that have too few images each.
function pooledSection(found) {
  const { pooled } = found;
  const pictures = (j) => thumbsOf("feature", j, (detail) => detail.shots, 4);
  const said = !known(found.n_compared) ? "" : pooled.n_suspects
    ? `${plural(pooled.n_suspects, "feature is a suspect", "features are suspects")}: at most ${suspectRate(found)} of them are expected to be there by chance.`
    : `For none is the evidence enough to be called a suspect with at most ${suspectRate(found)} by chance.`;
  return el("section", null,
    heading(`Over all classes with few ${things()}`, `Whether each of the ${count(pooled.n_features)} features does too much in the logits of the ${count(pooled.n_classes)} classes that have too few ${things()} to be looked at one by one. ${said}`),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Features over all classes" }, el("table", { class: "plain groups" },
      el("thead", null, el("tr", null, ["Feature", "Where it is strongest", "Overuse", "By chance", "Off for all, in points", "Most for"].map((text, i) => el("th", { scope: "col", class: [2, 3, 4].includes(i) ? "n" : null }, text)))),
      el("tbody", null, pooled.features.map((row) => el("tr", null,
        el("th", { scope: "row" }, featureLink(row.feature)),
        el("td", null, pictures(row.feature)),
        el("td", { class: "n" }, number(row.overuse.score)),
        el("td", { class: "n" }, percentSmall(row.overuse.q), row.overuse.suspect ? el("span", { class: "mark suspect" }, "suspect") : null),
        el("td", { class: "n" }, changed(row.off.loss), el("span", { class: "note between" }, changedBetween(row.off.interval))),
        el("td", null, row.classes.map((c, i) => [i ? ", " : "", classLink(c)]))))))));
}

const percentSmall = (value) => (!known(value) ? "–" : value < 0.0001 ? "<0.01%" : percent(value));

// Whether the evidence is enough, and how much of the list up to a pair is expected to be there by chance.
function suspectText({ q, suspect }) {
  if (!known(q)) return `there are no ${things()} to compare with those of the training, so no chance is told`;
  return `${suspect ? "a suspect" : "not enough to be a suspect"}: up to here ${percentSmall(q)} are expected by chance`;
}
const told = (found) => Math.max(found.auc, 1 - found.auc);
const carriesText = (found) => (found ? [el("bdi", null, `${found.attribute}: ${found.value}`), el("span", { class: "note between" }, `${found.auc < 0.5 ? "lower" : "higher"} in ${whole(told(found))} of pairs`)] : null);

function carriesFact(found) {
  const side = (value) => (found.auc < 0.5 ? 1 - value : value);
  const ends = found.interval?.map(side).sort((a, b) => a - b);
  return el("div", null, el("dt", null, "Tells apart"), el("dd", { class: "name" }, el("bdi", null, `${found.attribute}: ${found.value}`)),
    el("dd", { class: "note" }, `within the class it is ${found.auc < 0.5 ? "lower" : "higher"} on ${aThing()} with this than on one without in ${whole(told(found))} of all pairs${ends ? ` (${whole(ends[0])} to ${whole(ends[1])})` : ""}; 50% would be chance`));
}

function suspectView(index) {
  const found = bundle("data-suspects");
  const row = found?.pairs[index];
  if (!row?.shots) return missing("No such suspect", found ? "Only the first suspects have a page." : "Nobody has looked for shortcuts in this run yet: penult shortcuts RUN does.");
  const shown = found.pairs.filter((one) => one.shots);
  const less = row.sign < 0;
  const j = known(row.feature) ? row.feature : null;
  const sides = [
    ["high", less ? "Low in the class" : "High in the class", `What do these ${things()} share besides ${theSubject()}?`],
    ["low", less ? "High in the class" : "Low in the class", `Is ${theSubject()} as clear here, only without it?`],
    ["elsewhere", less ? "Low in other classes" : "High in other classes", "Do these show what the first ones share?"],
  ];
  const said = j === null ? null : verdictOf(j, row.class);
  return {
    title: `Suspect ${index + 1}: ${className(row.class)}`,
    content: [
      top("suspect", index, numbered(shown.length), (to) => `${className(shown[to].class)}, ${suspectName(shown[to])}`,
        [el("span", null, `Suspect ${index + 1} of ${count(found.pairs.length)}`), el("span", null, classLink(row.class))],
        [el("bdi", null, className(row.class)), el("span", { class: "as" }, ` by ${suspectName(row)}`)]),
      el("dl", { class: "numbers" },
        el("div", { class: "chosen" }, el("dt", null, "Overuse"), el("dd", null, number(row.overuse.score), el("small", null, " standard errors")),
          el("dd", { class: "note" }, suspectText(row.overuse))),
        el("div", null, el("dt", null, "Gap in the class"), el("dd", null, row.gap ? [points(row.gap.value), el("small", null, " points")] : "–"),
          el("dd", { class: "note" }, row.gap ? `${percent(row.gap.high.accuracy)} right where it is high (${count(row.gap.high.n_samples)}), ${percent(row.gap.low.accuracy)} where it is low (${count(row.gap.low.n_samples)}); between ${points(row.gap.interval[0])} and ${points(row.gap.interval[1])} with 95 % confidence` : "it does not vary within the class")),
        el("div", null, el("dt", null, "Calls others"), el("dd", null, row.pull ? percent(row.pull.called) : "–"),
          el("dd", { class: "note" }, row.pull ? `of the ${count(row.pull.n_samples)} ${things()} of other classes on which it is as ${less ? "low" : "high"} as in the class are called ${className(row.class)}; elsewhere ${percent(row.pull.called_elsewhere)}` : `on no other ${thing()} is it as strong`)),
        el("div", null, el("dt", null, "Switched off"), el("dd", null, changed(row.off.overall.loss), el("small", null, " points")),
          el("dd", { class: "note" }, `over all ${things()} (${changedBetween(row.off.overall.interval)}); ${changed(row.off.class.loss)} in the class (${changedBetween(row.off.class.interval)})`)),
        row.carries.length ? carriesFact(row.carries[0]) : null),
      el("section", null,
        less ? el("p", { class: "note" }, "Less of this feature speaks for the class: its weight lies below the mean weight of all classes.") : null,
        j === null ? el("p", { class: "note" }, "A direction is many features together, so there is no heat map of it.") : mapKey(),
        el("div", { class: "beside" }, sides.map(([side, title, text]) => el("div", null, el("h3", null, title), el("p", { class: "note" }, text), strip(row.shots[side], j ?? `direction ${row.direction}`, side === "elsewhere" ? null : row.class))))),
      el("section", { class: "verdict-of" }, el("h2", null, "Verdict"),
        said ? [el("p", null, verdictMark(j, row.class), said.note ? el("bdi", null, said.note) : null),
          el("p", { class: "note" }, [said.who, said.when].filter(Boolean).join(", "))]
          : el("p", { class: "note" }, j === null ? "Verdicts are given of single features." : "Nobody has said what this feature is to the class."),
        j === null ? null : live?.judge(row, index) ?? [
          el("p", null, "In the folder that holds the run, say what you see with one of ", ["core", "shortcut", "label noise", "unsure"].map((kind, i) => [i ? ", " : "", el("b", null, kind)]), ":"),
          el("pre", null, `penult verdict ${quoted(about().about.run)} ${quoted(`${j}:${className(row.class)}`)} shortcut`),
          el("p", { class: "note" }, "and see at once what happens without it: ", el("code", null, `penult edit ${quoted(about().about.run)} --off ${quoted(`${j}:${className(row.class)}`)}`))],
        j === null ? null : el("p", null, el("a", { href: `#feature/${j}` }, `All of feature ${j}`))),
    ],
  };
}

// As a shell takes it.
const quoted = (text) => (/^[\w.,:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
