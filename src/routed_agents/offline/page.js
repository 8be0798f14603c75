"use strict";
(() => {
  // Every text reaches the page through textContent: what came from outside stays text.
  const data = JSON.parse(document.getElementById("data").textContent);
  const cube = data.cube, totals = data.totals, DIMS = ["class", "tier", "node", "reason"];
  const TITLES = { tier: "By tier", class: "By task class", node: "By node", reason: "By guard or reason" };
  const ALL = { tier: "all tiers", class: "all classes", node: "all nodes", reason: "all reasons" };
  const field = Object.fromEntries(cube.fields.map((name, index) => [name, index]));
  const chosen = { class: null, tier: null, node: null, reason: null };
  const TIERS = ["cheap", "mid", "strong"];
  const $ = (selector, inside = document) => inside.querySelector(selector);

  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child != null && child !== ""));
    return made;
  }
  function svg(tag, attributes = {}, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text != null) made.textContent = text;
    return made;
  }

  // ---- numbers ----
  const count = (value) => value.toLocaleString("en-US");
  const many = (value, one, more) => `${count(value)} ${value === 1 ? one : more || one + "s"}`;
  function usd(pico, least = 4) {
    const amount = Math.abs(pico) / 1e12, places = amount >= 100 ? 2 : least, sign = pico < 0 ? "−" : "";
    if (pico && amount < 0.5 * 10 ** -places) return `${sign}<$${(10 ** -places).toFixed(places)}`;
    return sign + "$" + amount.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  }
  const priced = (sum) => sum.entries > sum.unpriced;
  const atLeast = (sum) => (sum.unpriced || sum.output_unknown ? "≥" : "");
  const cost = (sum, least) => (!sum.entries ? "–" : !priced(sum) ? "unpriced" : atLeast(sum) + usd(sum.cost || 0, least));
  const places = (rows) => (rows.some((row) => row.cost >= 100e12) ? 2 : 4); // one column, one precision
  const share = (sum) => (sum.baseline ? sum.saving / sum.baseline : null);
  const percent = (value) => (value == null ? "–" : `${Math.round(value * 100)}%`.replace("-", "−"));
  const tone = (value) => (value == null || !value ? "quiet" : value > 0 ? "good" : "bad");
  function took(seconds) {
    return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : seconds < 120 ? `${seconds.toFixed(1)} s`
      : seconds < 7200 ? `${Math.round(seconds / 60)} min` : seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
  }
  const two = (value) => String(value).padStart(2, "0");
  const day = (date) => `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
  const clock = (date, seconds) => `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}${seconds ? ":" + two(date.getUTCSeconds()) : ""}`;
  const moment = (ms) => `${day(new Date(ms))} ${clock(new Date(ms))}`;

  // ---- adding up ----
  const SUMS = ["steps", "attempts", "entries", "unpriced", "estimated", "output_unknown", "simulated", "tokens", "cost", "baseline", "saving"];
  const nothing = () => Object.fromEntries(SUMS.map((name) => [name, 0]));
  function add(sum, cell) { for (const name of SUMS) sum[name] += cell[field[name]]; return sum; }
  const fits = (cell, except) => DIMS.every((dim) => dim === except || chosen[dim] === null || cell[field[dim]] === chosen[dim]);
  const filtered = () => DIMS.some((dim) => chosen[dim] !== null);
  const nameOf = (dim) => cube.names[dim][chosen[dim]];
  // a row outside the aggregates has names, and may be one of those put together under "(others)"
  function rowFits(row) {
    return DIMS.every((dim) => {
      if (chosen[dim] === null || !(dim in row)) return true;
      if (cube.folded[dim] && chosen[dim] === cube.names[dim].length - 1) return !cube.names[dim].slice(0, -1).includes(row[dim]);
      return row[dim] === nameOf(dim);
    });
  }
  const tierClass = (name) => (TIERS.includes(name) ? name : "other");
  const tag = (name) => el("span", { class: `tag is-${tierClass(name)}` }, name);

  // ---- figures ----
  function figures() {
    const sum = cube.cells.filter((cell) => fits(cell)).reduce(add, nothing()), whole = !filtered();
    const exact = (name) => (whole && priced(sum) ? totals.words[name].replace("-", "−") : usd(sum[name]));
    const perStep = sum.steps && priced(sum) ? usd(sum.cost / sum.steps) : "–";
    const saved = share(sum), threads = data.threads, solved = data.solved;
    const cards = [
      ["Spent", priced(sum) || !sum.entries ? atLeast(sum) + exact("cost") : "unpriced",
        sum.unpriced || sum.estimated
          ? [sum.unpriced && `${many(sum.unpriced, "call")} unpriced, in no sum`, sum.estimated && `${many(sum.estimated, "call")} estimated`].filter(Boolean).join("; ")
          : `${many(sum.attempts, "call")}, ${compact(sum.tokens)} tokens`],
      ["All-strong", sum.baseline ? exact("baseline") : "–", totals.baseline_models.length ? `the same steps on ${totals.baseline_models.join(", ")}` : "no baseline recorded"],
      [sum.saving < 0 ? "Extra" : "Saved", sum.baseline ? (saved == null ? "–" : percent(Math.abs(saved))) : "–",
        sum.baseline ? `${whole ? totals.words.saving.replace("-", "") : usd(Math.abs(sum.saving))}, nominal${sum.unpriced ? ", lower bound" : ""}` : "", tone(sum.saving)],
      ["Per step", perStep === "–" ? perStep : atLeast(sum) + perStep, many(sum.steps, "step")],
    ];
    if (whole) {
      cards.push(["Cache-aware saving", totals.cache_aware_known ? usd(totals.cache_aware) : "–",
        totals.cache_aware_known ? `over ${many(totals.cache_aware_known, "call")}` : "not recorded: moving between caches is not counted"]);
      if (threads) cards.push(["Per thread", usd(threads.mean), `${many(threads.threads, "thread")}; median ${usd(threads.median)}, a tenth above ${usd(threads.high)}`]);
      cards.push(solved
        ? ["Per solved task", solved.solved ? atLeast(solved) + usd(solved.cost / solved.solved) : "–", `${count(solved.solved)} of ${many(solved.known, "task")} solved; failed ones are paid for too`]
        : ["Per solved task", "–", "no outcomes given (--outcomes)"]);
      const again = data.escalations.reduce((all, row) => all + row.times, 0);
      cards.push(["Tried again", count(again), again ? "calls followed by another" : "every first call was kept"]);
    }
    $("#figures").replaceChildren(...cards.map(([name, value, note, color]) => el("div", { class: "figure" },
      el("div", { class: "name" }, name), el("div", { class: `value ${value === "unpriced" ? "warn" : color === "quiet" ? "" : color || ""}` }, value), el("div", { class: "note" }, note))));
  }
  const compact = (value) => (value < 10000 ? count(value) : value < 1e6 ? `${(value / 1e3).toFixed(0)}k` : `${(value / 1e6).toFixed(1)}M`);

  // ---- filters ----
  function filters() {
    const selects = ["tier", "class", "node", "reason"].map((dim) => {
      const select = el("select", { id: `filter-${dim}`, "aria-label": `Filter by ${dim}`, class: chosen[dim] === null ? "" : "on",
        on: { change: (event) => choose(dim, event.target.value === "" ? null : Number(event.target.value)) } },
      el("option", { value: "" }, ALL[dim]));
      cube.names[dim].forEach((name, index) => select.append(el("option", { value: index, selected: chosen[dim] === index }, name)));
      return select;
    });
    $("#filters").replaceChildren(...selects, el("button", { id: "clear", type: "button", class: "plain", hidden: !filtered(), on: { click: () => { for (const dim of DIMS) chosen[dim] = null; draw(); } } }, "Clear filters"));
  }
  function choose(dim, value) {
    chosen[dim] = chosen[dim] === value ? null : value;
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.focus : null, id = document.activeElement && document.activeElement.id;
    draw();
    const again = id ? document.getElementById(id) : focused ? [...document.querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === focused) : null;
    if (again) again.focus({ preventScroll: true });
  }

  // ---- time ----
  function chart() {
    const box = $("#time .chart"), width = Math.max(box.clientWidth, 260), height = innerWidth <= 560 ? 180 : 220;
    const left = 54, right = 6, top = 8, bottom = 24, inner = width - left - right, tall = height - top - bottom;
    const byBucket = Array.from({ length: cube.buckets }, () => ({ all: nothing(), tiers: new Map() }));
    for (const cell of cube.cells) {
      if (!fits(cell)) continue;
      const bucket = byBucket[cell[0]], tier = cell[field.tier];
      add(bucket.all, cell);
      if (!bucket.tiers.has(tier)) bucket.tiers.set(tier, 0);
      bucket.tiers.set(tier, bucket.tiers.get(tier) + cell[field.cost]);
    }
    const most = Math.max(1, ...byBucket.map((bucket) => Math.max(bucket.all.cost, bucket.all.baseline)));
    const step = nice(most / 3), ceiling = Math.max(step * Math.ceil(most / step), step);
    const y = (value) => top + tall - (value / ceiling) * tall, slot = inner / cube.buckets;
    const drawn = svg("svg", { role: "img", "aria-label": "Cost over time by tier, and the all-strong baseline", viewBox: `0 0 ${width} ${height}` });
    for (let value = 0; value <= ceiling * 1.001; value += step) {
      drawn.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      drawn.append(svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, axis(value, step)));
    }
    const order = cube.names.tier.map((name, index) => [TIERS.includes(name) ? TIERS.indexOf(name) : 9, index]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const gap = Math.min(4, slot * 0.2), thick = Math.min(slot - gap, 72);
    let path = "";
    byBucket.forEach((bucket, index) => {
      let below = 0;
      const x = left + slot * index + (slot - thick) / 2;
      for (const [, tier] of order) {
        const value = bucket.tiers.get(tier) || 0;
        if (value <= 0) continue;
        drawn.append(svg("rect", { class: `tier-${tierClass(cube.names.tier[tier])}`, x, width: Math.max(thick, 0.5), y: y(below + value), height: Math.max((value / ceiling) * tall, 0.5), rx: Math.min(2, thick / 4) }));
        below += value;
      }
      const at = y(bucket.all.baseline), from = left + slot * index;
      path += `${path ? "L" : "M"}${from},${at}L${from + slot},${at}`;
    });
    const anyBase = byBucket.some((bucket) => bucket.all.baseline);
    if (anyBase) drawn.append(svg("path", { class: "baseline", d: path }));
    const every = Math.max(1, Math.ceil(64 / slot));
    for (let index = 0; index < cube.buckets; index += every) {
      if (index && left + slot * (index + 0.5) > width - right - 24) break;
      drawn.append(svg("text", { x: left + slot * (index + 0.5), y: height - 6, "text-anchor": "middle" }, label(index)));
    }
    const said = el("div", { class: "said", "aria-live": "polite" }, hint());
    byBucket.forEach((bucket, index) => {
      const hit = svg("rect", { class: "hit", x: left + slot * index, width: slot, y: top, height: tall });
      const say = () => { const all = bucket.all; said.textContent = `${span(index)}: ${cost(all)}${all.baseline ? `, all-strong ${usd(all.baseline)}` : ""}, ${many(all.steps, "step")}${all.unpriced ? `, ${count(all.unpriced)} unpriced` : ""}${all.estimated ? `, ${count(all.estimated)} estimated` : ""}`; };
      hit.addEventListener("pointerenter", say); hit.addEventListener("click", say);
      hit.addEventListener("pointerleave", () => { said.textContent = hint(); });
      drawn.append(hit);
    });
    box.replaceChildren(drawn, said);
    const known = order.map(([, index]) => cube.names.tier[index]);
    const legend = known.map((name) => el("span", {}, el("i", { class: `tier-${tierClass(name)}` }), name));
    if (anyBase) legend.push(el("span", {}, el("i", { class: "line" }), "all-strong baseline"));
    $("#time .legend").replaceChildren(...legend);
  }
  const hint = () => `${cube.buckets > 1 ? "A bar is " + length(cube.width) + ". " : ""}Times are UTC.`;
  const length = (ms) => [[86400000, "day"], [3600000, "hour"], [60000, "minute"], [1000, "second"]].reduce((found, [size, name]) => found || (ms % size === 0 && ms >= size ? many(ms / size, name) : ""), "");
  function nice(value) {
    const power = 10 ** Math.floor(Math.log10(value)), scaled = value / power;
    return power * (scaled <= 1 ? 1 : scaled <= 2 ? 2 : scaled <= 5 ? 5 : 10);
  }
  function axis(value, step) {
    const places = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / 1e12) - 1e-9))), amount = value / 1e12;
    return "$" + (amount >= 10000 ? compact(amount) : amount.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }));
  }
  const begin = (index) => new Date(cube.start + cube.width * index);
  function label(index) {
    const date = begin(index);
    if (cube.width >= 86400000) return cube.width > 86400000 * 40 ? day(date).slice(0, 7) : day(date).slice(5);
    return clock(date, cube.width < 60000);
  }
  function span(index) {
    return cube.width >= 86400000 ? (cube.width === 86400000 ? day(begin(index)) : `${day(begin(index))} and ${length(cube.width)} on`) : `${day(begin(index))} ${clock(begin(index), cube.width < 60000)}`;
  }

  // ---- tables ----
  const orders = {};
  function table(id, columns, rows, usual) {
    const order = orders[id] || (orders[id] = { key: usual, down: true, most: 12 });
    const column = columns.find((each) => each.key === order.key) || columns[0];
    const sorted = rows.map((row, index) => [row, index]).sort(([a, i], [b, j]) => {
      const x = column.value(a), y = column.value(b);
      if (x == null || y == null) return (x == null) - (y == null) || i - j; // what is not known comes last, whichever way
      const way = typeof x === "string" ? x.localeCompare(y, "en") : x - y;
      return (order.down ? -way : way) || i - j;
    }).map(([row]) => row);
    const heads = columns.map((each) => el("th", { scope: "col", class: `${each.text ? "text" : ""} ${each.small ? "small" : ""}`, "aria-sort": each.key === order.key ? (order.down ? "descending" : "ascending") : "none" },
      el("button", { type: "button", "data-focus": `${id}-${each.key}`, on: { click: () => { const same = order.key === each.key; order.down = same ? !order.down : !each.text; order.key = each.key; draw(); refocus(`${id}-${each.key}`); } } }, each.name)));
    const body = sorted.slice(0, order.most).map((row) => el("tr", {}, ...columns.map((each) => {
      const shown = each.show(row);
      return el("td", { class: [each.text ? "text wide" : "", each.small ? "small" : "", each.tone ? each.tone(row) : ""].join(" ").trim(), title: each.text && typeof shown === "string" ? shown : null }, shown);
    })));
    const made = [rows.length ? el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...body)) : el("p", { class: "empty" }, "Nothing here.")];
    if (sorted.length > order.most) made.push(el("button", { type: "button", class: "plain more", on: { click: () => { order.most *= 4; draw(); } } }, `Show more of ${count(sorted.length)}`));
    return made;
  }
  function refocus(key) { const found = [...document.querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === key); if (found) found.focus({ preventScroll: true }); }
  const costTone = (row) => (row.entries && !priced(row) ? "warn" : "");

  function breakdowns() {
    const made = ["tier", "class", "node", "reason"].map((dim) => {
      const sums = cube.names[dim].map((name, index) => ({ name, index, ...nothing() }));
      for (const cell of cube.cells) if (fits(cell, dim)) add(sums[cell[field[dim]]], cell);
      const rows = sums.filter((row) => row.entries), most = Math.max(1, ...rows.map((row) => row.cost)), exact = places(rows);
      const pick = (row) => {
        const bar = el("span", { class: `bar ${dim === "tier" ? "tier-" + tierClass(row.name) : ""}` });
        bar.style.width = `${(row.cost / most) * 100}%`;
        const folded = cube.folded[dim] && row.index === cube.names[dim].length - 1 ? ` ${count(cube.folded[dim])} more` : "";
        return el("div", {}, el("button", { type: "button", class: "pick", "aria-pressed": String(chosen[dim] === row.index), "data-focus": `${dim}-${row.index}`, title: row.name, on: { click: () => choose(dim, row.index) } }, row.name + folded), bar);
      };
      const columns = [
        { key: "name", name: dim, text: true, value: (row) => row.name, show: pick },
        { key: "steps", name: "steps", value: (row) => row.steps, show: (row) => count(row.steps) },
        { key: "cost", name: "cost", value: (row) => (priced(row) ? row.cost : null), show: (row) => cost(row, exact), tone: costTone },
        { key: "saving", name: "saved", value: share, show: (row) => percent(share(row)), tone: (row) => tone(share(row)) },
      ];
      return el("section", { class: "card", id: `by-${dim}` }, el("h2", {}, TITLES[dim]), el("div", { class: "table" }, ...table(dim, columns, rows, "cost")));
    });
    $("#breakdowns").replaceChildren(...made);
  }

  function escalations() {
    const sums = new Map();
    for (const row of data.escalations) {
      const here = { ...row, tier: row.from, reason: undefined };
      delete here.reason;
      if (!rowFits(here)) continue;
      const key = JSON.stringify([row.from, row.to, row.why, row.class]);
      const sum = sums.get(key) || { ...row, times: 0, cost: 0, unpriced: 0, output_unknown: 0, entries: 0, nodes: new Set() };
      for (const name of ["times", "cost", "unpriced", "output_unknown", "entries"]) sum[name] += row[name];
      sum.nodes.add(row.node);
      sums.set(key, sum);
    }
    const exact = places([...sums.values()]);
    const columns = [
      { key: "why", name: "reason", text: true, value: (row) => row.why, show: (row) => row.why },
      { key: "from", name: "from → to", text: true, value: (row) => row.from + row.to, show: (row) => el("span", { class: "way" }, tag(row.from), el("span", { class: "quiet" }, "→"), tag(row.to)) },
      { key: "class", name: "class", text: true, small: true, value: (row) => row.class, show: (row) => row.class },
      { key: "nodes", name: "nodes", text: true, small: true, value: (row) => [...row.nodes].join(", "), show: (row) => [...row.nodes].join(", ") },
      { key: "times", name: "times", value: (row) => row.times, show: (row) => count(row.times) },
      { key: "cost", name: "lost", value: (row) => (priced(row) ? row.cost : null), show: (row) => cost(row, exact), tone: costTone },
    ];
    const rows = [...sums.values()];
    $("#escalations .table").replaceChildren(...(rows.length ? table("escalations", columns, rows, "times") : [el("p", { class: "empty" }, "No call had to be followed by another one.")]));
  }

  // ---- chains ----
  const sought = { chains: "", steps: "" };
  let chainOrder = "cost", chainsShown = 10;
  const CHAIN_ORDERS = { cost: ["cost", (row) => row.cost || 0], saving: ["saving", (row) => row.saving || 0], steps: ["steps", (row) => row.steps], again: ["calls tried again", (row) => row.again], started: ["newest", (row) => row.started], seconds: ["longest", (row) => row.seconds] };
  function search(where) {
    return el("input", { type: "search", placeholder: "Search", "aria-label": `Search ${where}`, on: { input: (event) => { sought[where] = event.target.value.toLowerCase(); where === "chains" ? chains() : steps(); } } });
  }
  function tools() {
    const select = el("select", { id: "chain-order", "aria-label": "Sort chains", on: { change: (event) => { chainOrder = event.target.value; chains(); } } },
      ...Object.entries(CHAIN_ORDERS).map(([key, [name]]) => el("option", { value: key }, `by ${name}`)));
    $("#chains .tools").append(search("chains"), select);
    $("#steps .tools").append(search("steps"));
  }
  const has = (words, text) => !text || words.some((word) => word && word.toLowerCase().includes(text));
  function chains() {
    const open = new Set([...document.querySelectorAll("#chains details[open]")].map((each) => each.dataset.key));
    const value = CHAIN_ORDERS[chainOrder][1];
    const rows = data.chains.filter((row) => has([row.name], sought.chains) && row.runs.some((run) => run.steps.some(rowFits))).sort((a, b) => value(b) - value(a));
    const made = rows.slice(0, chainsShown).map((row) => {
      const under = [many(row.steps, "step"), moment(row.started), took(row.seconds)];
      if (row.saving != null && row.baseline) under.push(`${row.saving < 0 ? "extra" : "saved"} ${usd(Math.abs(row.saving))}`);
      if (row.again) under.push(`${count(row.again)} tried again`);
      if (row.simulated) under.push("simulated");
      const body = el("div", { class: "tree" });
      const details = el("details", { "data-key": row.kind + row.name, on: { toggle: () => { if (details.open && !body.childNodes.length) body.append(...tree(row)); } } },
        el("summary", {}, el("span", { class: "who", title: row.name }, row.name), el("span", { class: `money ${costTone(row)}` }, cost(row)), el("span", { class: "under" }, under.join(" · "))), body);
      if (open.has(details.dataset.key)) { details.open = true; body.append(...tree(row)); }
      return details;
    });
    if (rows.length > chainsShown) made.push(el("button", { type: "button", class: "plain more", on: { click: () => { chainsShown = Infinity; chains(); } } }, `Show ${count(rows.length - chainsShown)} more`));
    $("#chains .list").replaceChildren(...(made.length ? made : [el("p", { class: "empty" }, "No chain fits.")]));
  }
  function tree(chain) {
    const lines = [];
    for (const run of chain.runs) {
      if (chain.runs.length > 1 && run.name) lines.push(el("div", { class: "run" }, `run ${run.name}`));
      for (const step of run.steps) {
        const why = [step.class === step.node ? "" : step.class, step.reason === step.class ? "by class" : step.reason, `${count(step.input)} in, ${count(step.output)} out${step.cached ? `, ${count(step.cached)} cached` : ""}`];
        if (step.saving) why.push(`${step.saving < 0 ? "extra" : "saved"} ${usd(Math.abs(step.saving))}`);
        if (step.outcome !== "accepted") why.push(step.outcome);
        if (step.estimated) why.push("estimated");
        lines.push(el("div", { class: "node" }, el("span", { class: "name" }, step.node), tag(step.tier), el("span", { class: `cost ${costTone(step)}` }, cost(step)), el("span", { class: "why" }, why.filter(Boolean).join(" · "))));
        for (const call of step.tried) lines.push(el("div", { class: "node call" }, el("span", { class: "name" }, `${call.kind === "attempt" ? call.outcome : `${call.kind}, ${call.outcome}`}${call.why ? ": " + call.why : ""}`), tag(call.tier), el("span", { class: `cost ${call.cost == null ? "warn" : ""}` }, call.cost == null ? "unpriced" : atLeast(call) + usd(call.cost))));
      }
    }
    if (chain.left_out) lines.push(el("div", { class: "run" }, `and ${many(chain.left_out, "cheaper step")}`));
    return lines;
  }

  // ---- steps ----
  function steps() {
    const exact = places(data.steps);
    const rows = data.steps.filter((row) => rowFits(row) && has([row.node, row.chain, row.class, row.model, row.reason, row.id], sought.steps));
    const columns = [
      { key: "node", name: "step", text: true, value: (row) => row.node, show: (row) => row.node },
      { key: "chain", name: "chain", text: true, small: true, value: (row) => row.chain, show: (row) => row.chain },
      { key: "class", name: "class", text: true, small: true, value: (row) => row.class, show: (row) => row.class },
      { key: "tier", name: "tier", text: true, value: (row) => row.tier, show: (row) => tag(row.tier) },
      { key: "reason", name: "reason", text: true, small: true, value: (row) => row.reason, show: (row) => row.reason },
      { key: "tokens", name: "tokens", small: true, value: (row) => row.input + row.output, show: (row) => count(row.input + row.output) },
      { key: "cost", name: "cost", value: (row) => (priced(row) ? row.cost : null), show: (row) => cost(row, exact), tone: costTone },
      { key: "saving", name: "saved", value: (row) => row.saving, show: (row) => (row.saving ? usd(row.saving) : "–"), tone: (row) => tone(row.saving) },
    ];
    $("#steps .table").replaceChildren(...table("steps", columns, rows, "cost"));
  }

  // ---- the rest ----
  function once() {
    const range = totals.entries ? `${moment(totals.started / 1e6)} to ${moment(totals.ended / 1e6)} UTC` : "no calls";
    $("#about").textContent = `${range} · ${many(totals.steps, "step")} in ${many(totals.chains, "chain")}`;
    const simulated = $("#simulated");
    simulated.hidden = !totals.simulated;
    simulated.textContent = totals.simulated >= totals.entries ? "Simulated: the embedded provider answered every call, and no money was spent." : `${many(totals.simulated, "call")} of ${count(totals.entries)} were simulated by the embedded provider: that part of the money was not spent.`;
    const notes = [
      "All-strong: the same steps on the baseline model, priced as the costs are, with the same cache use. Saved: baseline less cost, over the steps for which both are fully known.",
      "A step counts where the call that answered it is, and each call under its most telling reason, so the rows of a table add up. A chain is a thread; calls without one count by their run.",
    ];
    if (totals.unpriced) notes.unshift(`${many(totals.unpriced, "call")} of unknown cost: in no sum, and their steps in no saving. ≥ marks sums they are missing from.`);
    if (totals.output_unknown) notes.unshift(`${many(totals.output_unknown, "call")} cut off before an answer: only the estimated prompt is in the sums, which ≥ marks as lower bounds, and their steps are in no saving.`);
    if (totals.estimated) notes.unshift(`${many(totals.estimated, "call")} estimated: the provider did not say how many tokens were used.`);
    if (data.chains.length < totals.chains) notes.push(`The figures are over everything; listed are the ${count(data.chains.length)} dearest of ${many(totals.chains, "chain")} and the ${count(data.steps.length)} dearest of ${many(totals.steps, "step")}.`);
    if (data.troubles) notes.unshift(`${many(data.troubles, "line")} of the sources could not be read.`);
    notes.push(`Made ${data.made} by routed-agents.`);
    $("#notes").append(...notes.map((note) => el("p", {}, note)));
  }
  function shadow() {
    const found = data.shadow, box = $("#shadow");
    if (!found) return;
    const row = (tag, texts) => el("tr", {}, ...texts.map((text, index) => el(tag, { class: index ? "" : "text" }, text)));
    $("h2", box).textContent = found.title;
    $(".table", box).append(el("table", {}, el("thead", {}, row("th", found.heads)), el("tbody", {}, ...found.rows.map((texts) => row("td", texts)))));
    $("p", box).textContent = found.notes.join("; ") + ".";
    box.hidden = false;
  }
  const THEMES = ["", "light", "dark"], NAMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  function theme() {
    let now = "";
    try { now = localStorage.getItem("routed-agents-theme") || ""; } catch { /* a page from a file may have no storage */ }
    const show = () => {
      if (now) document.documentElement.dataset.theme = now; else delete document.documentElement.dataset.theme;
      $("#theme").textContent = NAMES[now] || NAMES[""];
    };
    $("#theme").addEventListener("click", () => {
      now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
      try { localStorage.setItem("routed-agents-theme", now); } catch { /* as above */ }
      show();
    });
    show();
  }
  function draw() { figures(); filters(); chart(); breakdowns(); escalations(); chains(); steps(); }
  theme(); once(); shadow(); tools(); draw();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; chart(); } });
})();
