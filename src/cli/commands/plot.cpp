// quern plot: the curves of training runs as SVG or PNG.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "cli/framework/command.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "plot/chart.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::vector<std::string> runs;
  std::string out;
  double smooth = 0.95;
  std::string over = "tokens";
  bool force = false;
};

// A CSV file of a run: its columns by name, but for one whose cells are words.
struct Table {
  std::map<std::string, std::vector<double>, std::less<>> numbers;
  std::vector<std::string> words;
};

std::vector<std::string_view> cells(std::string_view line) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find(',', begin), line.size());
    out.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

Table read_table(const fs::path& path, std::string_view text_column) {
  const std::string text = read_file(path);
  Table table;
  std::vector<std::string> names;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    // A run that is being written to may be read in the middle of its last line.
    if (end == text.size() && number > 0) break;
    const auto row = cells(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    if (names.empty()) {
      names.assign(row.begin(), row.end());
      continue;
    }
    const auto bad = [&](const std::string& what) {
      throw_bad_input(fmt::format("{}: line {} {}", path.string(), number + 1, what),
                      "the file of another program? `quern pretrain` writes it");
    };
    if (row.size() != names.size()) {
      bad(fmt::format("has {} columns, the first line {}", row.size(), names.size()));
    }
    for (size_t i = 0; i < row.size(); ++i) {
      if (names[i] == text_column) {
        table.words.emplace_back(row[i]);
        continue;
      }
      double value = 0;
      const auto [stop, failure] =
          std::from_chars(row[i].data(), row[i].data() + row[i].size(), value);
      if (failure != std::errc{} || stop != row[i].data() + row[i].size()) {
        bad(fmt::format("has no number under {}", names[i]));
      }
      table.numbers[names[i]].push_back(value);
    }
  }
  return table;
}

const std::vector<double>& column(const Table& table, const fs::path& path, std::string_view name) {
  static const std::vector<double> kNone;
  const auto at = table.numbers.find(name);
  if (at != table.numbers.end()) return at->second;
  if (table.numbers.empty()) return kNone;  // a run that has not got that far
  throw_bad_input(fmt::format("{}: has no column {}", path.string(), name),
                  "the file of another program? `quern pretrain` writes it");
}

// The exponential mean, unbiased at the beginning. What is not finite is passed over.
std::vector<double> smoothed(const std::vector<double>& values, double keep) {
  std::vector<double> out;
  double sum = 0, weight = 0;
  for (const double value : values) {
    if (std::isfinite(value)) {
      sum = keep * sum + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    out.push_back(weight > 0 ? sum / weight : value);
  }
  return out;
}

std::string name_of(const fs::path& run) {
  const fs::path last = fs::path(run).lexically_normal();
  return last.has_filename() ? last.filename().string() : last.parent_path().filename().string();
}

class Curves {
 public:
  Curves(const Arguments& args) : args_(args), many_(args.runs.size() > 1) {
    for (Chart* chart : {&loss_, &valid_, &rate_, &norm_, &speed_}) chart->x_label = args.over;
    norm_.log_y = true;
  }

  void add(const fs::path& run, int color) {
    const std::string name = name_of(run);
    const fs::path metrics = run / "metrics.csv", validation = run / "validation.csv";
    if (!fs::exists(metrics)) {
      throw_bad_input(run.string() + ": holds no metrics.csv",
                      "name the folder of a run of `quern pretrain`");
    }
    const Table steps = read_table(metrics, "");
    const auto& x = column(steps, metrics, args_.over);
    const auto draw = [&](Chart& chart, std::string_view what, bool smooth) {
      const auto& y = column(steps, metrics, what);
      const std::string shown = many_ ? name : "";
      if (smooth && args_.smooth > 0) {
        chart.series.push_back({"", x, y, color, true});
        chart.series.push_back({shown, x, smoothed(y, args_.smooth), color});
      } else {
        chart.series.push_back({shown, x, y, color});
      }
    };
    draw(loss_, "loss", true);
    draw(rate_, "lr", false);
    draw(norm_, "grad_norm", true);
    draw(speed_, "tokens_per_s", true);
    if (fs::exists(validation)) add_validation(validation, name, color);
  }

  std::string svg() const {
    const Chart all[] = {loss_, valid_, rate_, norm_, speed_};
    return draw_svg(all, 2);
  }

 private:
  void add_validation(const fs::path& file, const std::string& run, int color) {
    const Table table = read_table(file, "source");
    const auto& x = column(table, file, args_.over);
    const auto& y = column(table, file, "loss");
    std::vector<std::string> sources;
    for (size_t i = 0; i < table.words.size(); ++i) {
      if (std::find(sources.begin(), sources.end(), table.words[i]) == sources.end()) {
        sources.push_back(table.words[i]);
      }
    }
    for (size_t s = 0; s < sources.size(); ++s) {
      Series series{many_ ? run + ": " + sources[s] : sources[s]};
      series.color = many_ ? color : static_cast<int>(s);
      series.markers = true;
      for (size_t i = 0; i < table.words.size(); ++i) {
        if (table.words[i] != sources[s]) continue;
        series.x.push_back(x[i]);
        series.y.push_back(y[i]);
      }
      valid_.series.push_back(std::move(series));
    }
  }

  const Arguments& args_;
  bool many_;
  Chart loss_{"Training loss", "", "nats per token", {}},
      valid_{"Validation loss", "", "nats per token", {}}, rate_{"Learning rate", "", "", {}},
      norm_{"Gradient norm", "", "", {}}, speed_{"Speed", "", "tokens/s", {}};
};

void plot(const Arguments& args) {
  fs::path out(args.out);
  if (args.out.empty())
    out = args.runs.size() == 1 ? args.runs[0] / fs::path("curves.svg") : fs::path("curves.svg");
  // The default picture is this command's own and is drawn anew.
  if (!args.out.empty() || args.runs.size() > 1) claim_output(out, args.force);
  Curves curves(args);
  for (size_t i = 0; i < args.runs.size(); ++i) curves.add(args.runs[i], static_cast<int>(i));
  write_picture(out, curves.svg());
  print(out.string() + "\n");
}

}  // namespace

void add_plot(CLI::App& root) {
  Command command(
      root, "plot", "Draw the curves of training runs",
      {{"plot runs/mini", "loss, validation, learning rate, gradient norm, tokens per second"},
       {"plot runs/mini runs/other --out both.png", "several runs in one picture"}});
  auto args = std::make_shared<Arguments>();
  command.positional("runs", args->runs, "Folders of training runs").folder().required();
  command
      .option("--out", args->out, "Picture to write, .svg or .png",
              "curves.svg in the run's folder; for several runs, here")
      .file();
  command.flag("--force", args->force, "Replace the picture if it exists");
  command.option("--smooth", args->smooth, "Exponential smoothing factor; 0 = raw values")
      .range(0.0, 0.9999);
  command.option("--over", args->over, "Quantity on the x axis").one_of({"tokens", "step"});
  command.on_run([args] { plot(*args); });
}

}  // namespace quern::cli
