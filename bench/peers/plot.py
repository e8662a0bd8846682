"""Draws what run.py measured: how fast each program is, beside the first peer.

    pip install matplotlib==3.11.2
    python3 bench/peers/plot.py figures.json docs/figures/peers.svg
"""
import argparse
import json
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLORS = ["#0072b2", "#999999", "#e69f00"]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=pathlib.Path, help="what run.py wrote with --json")
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    measured = json.loads(args.figures.read_text())
    programs, rows = measured["programs"], measured["rows"]
    plt.rcParams.update({"svg.hashsalt": "quern", "svg.fonttype": "none",
                         "font.family": "sans-serif", "font.size": 9})
    kinds = list(dict.fromkeys(row["weights"] for row in rows))
    figure, panels = plt.subplots(1, len(kinds), squeeze=False, sharex=True,
                                  figsize=(3.1 * len(kinds) + 0.9, 0.55 * 5 + 1))
    thickness = 0.8 / len(programs)
    for kind, panel in zip(kinds, panels[0]):
        tests = [row for row in rows if row["weights"] == kind]
        for which, (name, color) in enumerate(zip(programs, COLORS)):
            ratios = [row["tokens_per_s"][which] / row["tokens_per_s"][1] for row in tests]
            places = [i + (which - (len(programs) - 1) / 2) * thickness for i in range(len(tests))]
            bars = panel.barh(places, ratios, thickness * 0.9, color=color, label=name)
            panel.bar_label(bars, [f"{row['tokens_per_s'][which]:.0f}" for row in tests],
                            padding=2, fontsize=7)
        panel.axvline(1, color="#666666", linewidth=0.6)
        panel.set_yticks(range(len(tests)), [row["test"] for row in tests])
        panel.invert_yaxis()
        panel.set_title(kind)
        panel.set_xlabel(f"tokens/s, {programs[1]} = 1")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center",
                               ncols=len(programs), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
