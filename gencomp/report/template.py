"""The template of the page, which is one document without scripts that fetches nothing."""

from __future__ import annotations

from string import Template

STYLE = """
:root { color-scheme: light dark;
  --paper: #f6f6f4; --card: #ffffff; --ink: #1b1f24; --muted: #667080; --line: #dfe2e6;
  --accent: #0b63a5;
  --good: #0a7d55; --warn: #a4520a; --bad: #b3261e;
  --g1: #0072b2; --g2: #d55e00; --g3: #009e73; --g4: #b5578f; --g5: #a97700; --g6: #3a9bd9;
  --r1: #f0a030; --r2: #e2713f; --r3: #c8475e; --r4: #9c2f86; --r5: #66269c; --r6: #2b1d80;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #12151a; --card: #1a1e25; --ink: #e5e8ec; --muted: #97a1ae; --line: #303742;
  --accent: #74b7ee;
  --good: #4cc79a; --warn: #f0a35c; --bad: #ff8a80;
  --g1: #56aee8; --g2: #ff8c4d; --g3: #33c99d; --g4: #e39ac6; --g5: #e6b840; --g6: #9ad4f5;
  --r1: #fff0b0; --r2: #ffc45c; --r3: #ff9160; --r4: #f2688a; --r5: #c862c8; --r6: #9a7bf0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans);
  -webkit-text-size-adjust: 100%; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 56px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.012em; margin: 0 0 6px;
  text-wrap: balance; }
h2 { font-size: 21px; line-height: 1.3; letter-spacing: -.006em; margin: 0 0 10px; }
h3 { font-size: 16px; margin: 28px 0 8px; }
p { margin: 0 0 12px; max-width: 76ch; }
.muted, figcaption { color: var(--muted); }
.lede { font-size: 17px; margin-top: 18px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 24px 26px 20px;
  margin-top: 22px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(178px, 1fr)); gap: 1px;
  margin: 22px 0 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { background: var(--card); padding: 11px 16px 12px; }
.facts span { display: block; font-size: 13px; color: var(--muted); }
.facts b { font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.notes { margin: 18px 0 0; padding: 0; list-style: none; }
.notes li { border-left: 3px solid var(--warn); padding: 2px 0 2px 12px; margin-bottom: 6px; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
figure { margin: 14px 0 6px; }
figure svg { display: block; width: 100%; max-width: calc(var(--width) * 1.4px);
  min-width: min(calc(var(--width) * 1px), 680px); height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: 14px; max-width: 84ch; margin-top: 6px; }
.aside { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 10px 40px;
  align-items: start; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums;
  margin: 4px 0 6px;
  min-width: 60%; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; font-size: 13px; color: var(--muted); vertical-align: bottom; }
th.words, td.words { text-align: left; }
th:first-child, td:first-child { padding-left: 2px; }
tr.best td { background: color-mix(in srgb, var(--accent) 8%, transparent); }
tbody tr:last-child td { border-bottom: 0; }
.wrap { white-space: normal; min-width: 22ch; display: inline-block; }
.pm { color: var(--muted); }
code { font-family: var(--mono); font-size: .88em; overflow-wrap: anywhere; }
.finished { color: var(--good); } .stopped { color: var(--warn); } .failed { color: var(--bad); }
.pending { color: var(--muted); }
.gallery { display: grid; gap: 4px; width: max-content; max-width: none; }
.gallery h3 { grid-column: 1 / -1; position: sticky; left: 0; width: max-content;
  max-width: min(82vw, 1060px);
  margin: 14px 0 2px; font-size: 15px; }
.gallery h3 small { font-weight: 400; font-size: 14px; color: var(--muted); margin-left: 8px; }
.gallery div { font-size: 12px; color: var(--muted); text-align: center;
  font-variant-numeric: tabular-nums; }
.gallery img { display: block; width: 128px; height: auto; image-rendering: pixelated; }
.protocol { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 4px 40px; }
dl { display: grid; grid-template-columns: minmax(120px, auto) minmax(0, 1fr); gap: 3px 16px;
  margin: 0 0 10px;
  font-size: 14px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
@media (max-width: 760px) {
  main { padding: 24px 12px 40px; } section { padding: 18px 14px 14px; } h1 { font-size: 25px; }
  .aside { grid-template-columns: minmax(0, 1fr); } .gallery img { width: 64px;
  } th, td { padding: 6px 9px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 6px; } }
@media print { body { background: none; } section { break-inside: avoid; } }
"""

PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="gencomp">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<h1>$title</h1>
<p class="muted">$date</p>
$lede
$facts
$notes
</header>
$sections
</main>
</body>
</html>
"""
)
