// Draws one dashboard from the frames that its panels' queries gave: enough of what Grafana would show to see what a panel says.
"use strict";

const COLORS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0", "#96d98d", "#fade2a", "#ca95e5", "#37872d"];
const NAMED = { text: "#d8d9da", green: "#73bf69", red: "#f2495c", orange: "#ff9830", yellow: "#f2cc0c", blue: "#5794f2" };
const GRID = { columns: 24, row: 30, gap: 8, width: 1280, top: 64 };

function element(parent, tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

function short(value) {
  const size = Math.abs(value);
  const [divisor, suffix] = size >= 1e9 ? [1e9, " Bil"] : size >= 1e6 ? [1e6, " Mil"] : size >= 1e4 ? [1e3, " K"] : [1, ""];
  return String(Number((value / divisor).toPrecision(size < 1 ? 2 : 4))) + suffix;
}

function seconds(value) {
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 1e-3) return short(value * 1e6) + " µs";
  if (size < 1) return short(value * 1e3) + " ms";
  if (size < 120) return short(value) + " s";
  if (size < 7200) return short(value / 60) + " min";
  return size < 172800 ? short(value / 3600) + " h" : short(value / 86400) + " d";
}

function words(value, unit) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string" && (unit === undefined || value.trim() === "" || Number.isNaN(Number(value)))) {
    return /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(value) ? value.replace("T", " ").slice(0, 16) : value;
  }
  const number = Number(value);
  switch (unit) {
    case "percentunit": return short(number * 100) + " %";
    case "percent": return short(number) + " %";
    case "s": return seconds(number);
    case "ms": return seconds(number / 1000);
    case "d": return short(number) + " d";
    case "decmbytes": return short(number) + " MB";
    case "bytes": return number >= 2 ** 30 ? short(number / 2 ** 30) + " GiB" : number >= 2 ** 20 ? short(number / 2 ** 20) + " MiB" : short(number / 1024) + " KiB";
    case "ops": case "cps": case "reqps": return short(number) + "/s";
    case "dateTimeFromNow": return seconds(Math.max(0, Date.now() / 1000 - number / 1000)) + " ago";
    default: return short(number);
  }
}

// The colour of the highest step that a value reaches.
function colour(panel, value) {
  const steps = (panel.thresholds || []).filter((step) => step.value === null || value >= step.value);
  const name = steps.length ? steps[steps.length - 1].color : "text";
  return NAMED[name] || NAMED.text;
}

function legend(frame, labels) {
  if (!frame.legend) return Object.entries(labels).filter(([name]) => name !== "__name__").map(([, value]) => value).join(" ") || frame.title;
  return frame.legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] || "");
}

// Every series of a panel: a name, and points of [seconds, number].
function series(panel) {
  const all = new Map();
  const add = (name, at, value) => {
    if (!all.has(name)) all.set(name, []);
    all.get(name).push([at, value]);
  };
  for (const frame of panel.frames) {
    for (const row of frame.rows) {
      if (row.values) {
        row.values.forEach(([at, value]) => add(legend(frame, row.metric), at, Number(value)));
      } else {
        const text = String(row.time).replace(" ", "T");
        const at = Date.parse(/[Z+]/.test(text.slice(10)) ? text : text + "Z") / 1000;
        for (const [name, value] of Object.entries(row)) {
          if (name !== "time" && name !== "metric") add(row.metric || name, at, Number(value));
        }
      }
    }
  }
  return all;
}

function timeseries(panel, body, width, height) {
  const all = series(panel);
  const times = [...new Set([...all.values()].flat().map(([at]) => at))].sort((a, b) => a - b);
  const names = [...all.keys()].slice(0, 12);
  const data = [times, ...names.map((name) => {
    const at = new Map(all.get(name));
    return times.map((time) => (at.has(time) && Number.isFinite(at.get(time)) ? at.get(time) : null));
  })];
  const space = names.length > 1 ? 22 : 4;
  const axis = { stroke: "#9fa7b3", grid: { stroke: "#2c3235", width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
  const options = {
    width, height: height - space, legend: { show: false }, cursor: { show: false },
    scales: { y: { range: (_, low, high) => [Math.min(0, low), high > low ? high * 1.05 : (high || 1) * 1.2] } },
    axes: [axis, { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => words(tick, panel.unit)) }],
    series: [{}, ...names.map((name, n) => ({
      label: name, stroke: COLORS[n % COLORS.length], width: 1.5, spanGaps: true, points: { show: times.length < 40, size: 4 },
    }))],
  };
  new uPlot(options, data, body);
  if (names.length > 1) {
    const list = element(body, "div", "legend");
    names.forEach((name, n) => {
      element(list, "i", "dot").style.background = COLORS[n % COLORS.length];
      element(list, "span", "", name);
    });
  }
}

// Named numbers: of rows whose first text is the name, or of series as they are now.
function bars(panel) {
  const found = [];
  for (const frame of panel.frames) {
    for (const row of frame.rows) {
      if (row.value) { found.push([legend(frame, row.metric), Number(row.value[1])]); continue; }
      const label = Object.keys(row).find((name) => name.endsWith("_label")) || Object.keys(row).find((name) => typeof row[name] === "string" && Number.isNaN(Number(row[name])));
      for (const name of frame.columns.length ? frame.columns : Object.keys(row)) {
        const value = row[name];
        if (name === label) continue;
        const several = Object.keys(row).length > 2;
        found.push([label === undefined ? name : row[label] + (several ? " " + name : ""), Number(value)]);
      }
    }
  }
  return found;
}

function barchart(panel, body, width, height) {
  const fits = Math.max(1, Math.floor(height / 22));
  const found = bars(panel).slice(0, fits);
  const most = Math.max(...found.map(([, value]) => value), 1e-9);
  found.forEach(([name, value], n) => {
    const line = element(body, "div", "bar");
    element(line, "span", "name", name);
    const fill = element(element(line, "span", "track"), "span", "fill");
    fill.style.width = `${(100 * Math.max(value, 0)) / most}%`;
    fill.style.background = panel.type === "bargauge" ? NAMED.green : COLORS[n % COLORS.length];
    element(line, "span", "value", words(value, panel.unit));
  });
}

function stat(panel, body) {
  const found = bars(panel);
  body.classList.add("stats");
  found.slice(0, 6).forEach(([name, value]) => {
    const one = element(body, "div", "stat");
    const text = Number.isNaN(value) ? textOf(panel) : words(value, panel.unit);
    element(one, "div", "big", text).style.color = colour(panel, value);
    if (found.length > 1) element(one, "div", "of", name);
  });
  if (!found.length) element(body, "div", "big", textOf(panel));
}

function textOf(panel) {
  const row = panel.frames.flatMap((frame) => frame.rows)[0] || {};
  return String(Object.values(row.metric || row).find((value) => typeof value === "string") || panel.noValue);
}

function table(panel, body, width, height) {
  const rows = panel.frames.flatMap((frame) => frame.rows.map((row) => (row.value ? { ...row.metric, value: row.value[1] } : row)));
  const known = panel.frames[0].columns;
  const names = (known.length ? known : Object.keys(rows[0])).filter((name) => name !== "__name__");
  const unit = (name) => (panel.units[name] !== undefined ? panel.units[name] : typeof rows[0][name] === "number" ? panel.unit : undefined);
  const made = element(body, "table");
  const head = element(made, "tr");
  names.forEach((name) => element(head, "th", "", name));
  rows.slice(0, Math.max(1, Math.floor((height - 26) / 23))).forEach((row) => {
    const line = element(made, "tr");
    names.forEach((name) => element(line, "td", typeof row[name] === "number" ? "number" : "", words(row[name], unit(name))));
  });
}

function timeline(panel, body, width, height) {
  const all = [...series(panel).entries()].slice(0, Math.max(1, Math.floor(height / 24)));
  for (const [name, points] of all) {
    const line = element(body, "div", "bar");
    element(line, "span", "name", name);
    const track = element(line, "span", "track states");
    points.forEach(([, value]) => { element(track, "span", "state").style.background = colour(panel, value) === NAMED.text ? NAMED.green : colour(panel, value); });
  }
}

function heatmap(panel, body, width, height) {
  const rows = panel.frames.flatMap((frame) => frame.rows).filter((row) => row.metric.le !== "+Inf");
  rows.sort((a, b) => Number(a.metric.le) - Number(b.metric.le));
  const canvas = element(body, "canvas");
  [canvas.width, canvas.height] = [width, height];
  const paint = canvas.getContext("2d");
  const below = rows.map((row, n) => row.values.map(([, value], at) => Math.max(0, Number(value) - (n ? Number(rows[n - 1].values[at]?.[1] || 0) : 0))));
  const most = Math.max(...below.flat(), 1e-9);
  const [cell, line] = [(width - 60) / Math.max(1, below[0]?.length || 1), height / Math.max(1, rows.length)];
  below.forEach((values, n) => {
    values.forEach((value, at) => {
      if (value <= 0) return;
      paint.fillStyle = `rgba(255, 152, 48, ${0.15 + 0.85 * Math.sqrt(value / most)})`;
      paint.fillRect(60 + at * cell, height - (n + 1) * line, cell - 1, line - 1);
    });
    paint.fillStyle = "#9fa7b3";
    paint.font = "10px sans-serif";
    if (line > 9 || n % 3 === 0) paint.fillText(seconds(Number(rows[n].metric.le)), 2, height - n * line - line / 2 + 4);
  });
}

const KINDS = { timeseries, barchart, bargauge: barchart, stat, table, heatmap, "state-timeline": timeline };

function draw(page) {
  const title = element(document.body, "h1", "", page.title);
  element(title, "small", "", "drawn from the answers to its panels' queries, on made-up learners; not by Grafana");
  const unit = GRID.width / GRID.columns;
  let end = 0;
  for (const panel of page.panels) {
    const frame = element(document.body, "div", "panel");
    const [width, height] = [panel.w * unit - GRID.gap, panel.h * (GRID.row + GRID.gap) - GRID.gap];
    const top = GRID.top + panel.y * (GRID.row + GRID.gap);
    Object.assign(frame.style, { left: `${panel.x * unit + GRID.gap / 2}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    end = Math.max(end, top + height);
    element(frame, "h2", "", panel.title);
    const body = element(frame, "div", "body");
    const isEmpty = !panel.frames.some((found) => found.rows.length);
    if (isEmpty) element(body, "div", "none", panel.noValue);
    else KINDS[panel.type](panel, body, width - 20, height - 44);
  }
  document.body.style.height = `${end + 16}px`;
}
