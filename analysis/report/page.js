// Unpacks what draws the plots, and draws them from the data beside them, in the colours of the scheme that the reader's
// system asks for. Where the browser cannot unpack it, the page stays as it is without this script, and says so.
"use strict";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

const INKS = {
  light: { ink: "#33373d", faint: "rgba(90, 96, 105, 0.22)", paper: "#ffffff" },
  dark: { ink: "#c9cdd3", faint: "rgba(160, 167, 178, 0.22)", paper: "#23272e" },
};
const PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=";
const LONGEST_MS = 20000; // that a page keeps loading for its plots; they come all the same
const PAPER_WIDTH = 680; // of a printed page without its margins, in CSS pixels
const PAPER_HEIGHT = 860; // of a plot, so that its title and note fit on the same page
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const coarse = window.matchMedia("(pointer: coarse)");
const plots = [...document.querySelectorAll(".plot")];

// Base 85: every five digits are four bytes. The last group is filled up with the highest digit, and cut off again.
function bytes(text) {
  const values = new Uint8Array(128);
  for (let digit = 0; digit < DIGITS.length; digit++) values[DIGITS.charCodeAt(digit)] = digit;
  const missing = (5 - (text.length % 5)) % 5;
  const whole = text + "~".repeat(missing);
  const view = new DataView(new ArrayBuffer((whole.length / 5) * 4));
  for (let group = 0; group * 5 < whole.length; group++) {
    let number = 0;
    for (let place = 0; place < 5; place++) number = number * 85 + values[whole.charCodeAt(group * 5 + place)];
    view.setUint32(group * 4, number);
  }
  return view.buffer.slice(0, view.byteLength - missing);
}

function unpacked(name) {
  const packed = new Blob([bytes(document.getElementById(name).textContent)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function coloured(layout, scheme) {
  const { ink, faint, paper } = INKS[scheme];
  const changes = { "font.color": ink, "hoverlabel.bgcolor": paper, "hoverlabel.bordercolor": faint, "hoverlabel.font.color": ink };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    Object.assign(changes, { [`${name}.gridcolor`]: faint, [`${name}.linecolor`]: faint });
    if (layout[name].type === "log") changes[`${name}.minor.tickcolor`] = faint;
  }
  return changes;
}

function scheme() {
  return dark.matches ? "dark" : "light";
}

// The legend needs more lines on a narrow screen; the plot is made higher by them, not squeezed.
function height(plot) {
  const legend = plot.querySelector("g.legend");
  const lines = legend ? legend.getBoundingClientRect().height : 0;
  return Math.round(plot.asDrawn + Math.max(0, lines - plot.legendRoom));
}

// Where each panel has its own legend, its title stands above the lines that the legend takes.
function raised(plot) {
  const changes = {};
  const each = Object.keys(plot.layout).some((key) => /^legend\d+$/.test(key));
  for (const place of each ? plot.layout.annotations.keys() : []) {
    const legend = plot.querySelector(`g.legend${place ? place + 1 : ""}`);
    if (!legend) continue;
    const lines = legend.getBoundingClientRect().height;
    changes[`annotations[${place}].yshift`] = lines + 2;
    if (!place) changes["margin.t"] = Math.max(plot.legendRoom, lines + 38);
  }
  return changes;
}

async function draw(plot) {
  const { data, layout } = JSON.parse(await unpacked(`${plot.id}-data`));
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  // A finger on a plot scrolls the page.
  if (coarse.matches) layout.dragmode = false;
  plot.asDrawn = layout.height;
  plot.legendRoom = layout.margin.t;
  plot.replaceChildren();
  await Plotly.newPlot(plot, data, layout, config);
  await Plotly.relayout(plot, { ...coloured(plot.layout, scheme()), ...raised(plot), height: height(plot) });
  plot.style.height = "";
  plot.dataset.drawn = "yes";
}

function recolour(name) {
  for (const plot of drawn()) Plotly.relayout(plot, coloured(plot.layout, name));
}

// Programs print a page when it has loaded: until its plots are drawn, one small picture after the other keeps it loading.
function keepLoading() {
  const picture = new Image();
  const started = performance.now();
  let number = 0;
  let loading = true;
  const next = () => {
    if (loading && performance.now() - started < LONGEST_MS) picture.src = `${PICTURE}#${++number}`;
  };
  picture.onload = picture.onerror = next;
  next();
  return () => {
    loading = false;
  };
}

const drawn = () => plots.filter((plot) => plot.dataset.drawn);
let opened = [];

window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
  for (const plot of drawn()) {
    const size = { width: PAPER_WIDTH, height: Math.min(plot.asDrawn, PAPER_HEIGHT) };
    Plotly.relayout(plot, { ...coloured(plot.layout, "light"), ...size });
  }
});

window.addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
  for (const plot of drawn()) {
    const size = { width: null, height: height(plot), autosize: true };
    Plotly.relayout(plot, { ...coloured(plot.layout, scheme()), ...size });
  }
});

async function drawAll() {
  const plotly = document.createElement("script");
  plotly.textContent = await unpacked("plotly");
  document.head.append(plotly);
  // It has run, and would stand unpacked in a copy that the browser saves.
  plotly.remove();
  dark.addEventListener("change", () => recolour(scheme()));
  await Promise.all(plots.map(draw));
  document.documentElement.dataset.drawn = "yes";
}

function giveUp(error) {
  document.documentElement.classList.remove("drawing");
  document.querySelector(".without-plots").append(` (What went wrong: ${error.message || error}.)`);
}

if (document.documentElement.classList.contains("drawing")) {
  const loaded = keepLoading();
  drawAll().catch(giveUp).finally(loaded);
}
