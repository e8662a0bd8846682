#include "data/flow/pipeline_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "core/markup.h"
#include "core/python_text.h"
#include "core/rng.h"
#include "core/utf8.h"
#include "data/pipeline/stage.h"
#include "data/stages/text_rules.h"

namespace quern {
namespace {

constexpr size_t kSamples = 20;
constexpr size_t kBins = 32;
constexpr size_t kShownCharacters = 1500, kTitleCharacters = 90;

// Up to kSamples of a stream, each with the same chance.
class Samples {
 public:
  explicit Samples(uint64_t seed = 0, std::string_view name = {})
      : rng_(seed, std::hash<std::string_view>()(name)) {}

  void see(const std::function<std::string()>& make) {
    ++seen_;
    if (all_.size() < kSamples) {
      all_.push_back(make());
      return;
    }
    const uint64_t place = rng_.below(seen_);
    if (place < kSamples) all_[static_cast<size_t>(place)] = make();
  }
  const std::vector<std::string>& all() const noexcept { return all_; }

 private:
  Rng rng_;
  uint64_t seen_ = 0;
  std::vector<std::string> all_;
};

struct RuleFacts {
  int64_t count = 0;
  double threshold = 0;
  std::vector<float> values;
  Samples samples;
};

struct ScoreFacts {
  std::vector<float> kept, dropped;
};

struct StageFacts {
  std::string name, stage;
  int64_t in = 0, out = 0, bad = 0;
  uint64_t text_bytes = 0;
  std::map<std::string, RuleFacts> rules;
  std::map<std::string, ScoreFacts> scores;
  std::map<std::string, std::pair<int64_t, int64_t>> languages, sources;  // kept, dropped
  Samples kept;
};

// The first `most` characters of a text.
std::string cut(const std::string& text, size_t most) {
  const std::u32string points = python::points(text);
  if (points.size() <= most) return text;
  std::string out;
  for (size_t i = 0; i < most; ++i) utf8::append(out, points[i]);
  return out + "…";
}

// A record as a sample: its id and text, or all of it where it has no text.
std::string shown(const Record& record) {
  const std::string id = record.string("id").value_or(std::string(record.raw("id")));
  const std::string text = record.string("text").value_or(record.json());
  return fmt::format("<details><summary>{}: {}</summary><pre>{}</pre></details>\n",
                     escape_markup(id.empty() ? "no id" : id),
                     escape_markup(cut(text.substr(0, text.find('\n')), kTitleCharacters)),
                     escape_markup(cut(text, kShownCharacters)));
}

void each_record(const fs::path& file, const std::function<void(const Record&)>& see) {
  StageOptions options;
  options.inputs = {file};
  BatchReader reader(options, 0);
  RecordParser parser;
  while (const auto batch = reader.next()) {
    for_each_line(*batch,
                  [&](std::string_view line, const Place&) { see(Record(parser, line, "")); });
  }
}

std::vector<fs::path> shards_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("shard-")) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

std::vector<fs::path> dropped_folders(const fs::path& folder) {
  std::vector<fs::path> folders;
  if (!fs::is_directory(folder / "dropped")) return folders;
  for (const auto& entry : fs::directory_iterator(folder / "dropped")) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  return folders;
}

void count(const Record& record, bool kept, StageFacts& facts) {
  const auto add = [&](auto& counts, const std::string& key) {
    auto& [of_kept, of_dropped] = counts[key.empty() ? "not said" : key];
    ++(kept ? of_kept : of_dropped);
  };
  add(facts.languages, record.string("lang").value_or(""));
  add(facts.sources, record.string("source").value_or(""));
  const std::string_view scores = record.raw("scores");
  if (scores.empty()) return;
  const auto tree = nlohmann::json::parse(scores, nullptr, /*allow_exceptions=*/false);
  if (!tree.is_object()) return;
  for (const auto& [name, value] : tree.items()) {
    if (!value.is_number()) continue;
    auto& both = facts.scores[name];
    (kept ? both.kept : both.dropped).push_back(value.get<float>());
  }
}

// The manifest that the frame of stages wrote; nothing where the folder is another's work.
std::optional<Json> manifest_of(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  if (!fs::exists(path)) return std::nullopt;
  Json manifest = Json::parse_file(path.string());
  if (!manifest.has("stage") || !manifest.has("counts")) return std::nullopt;
  return manifest;
}

StageFacts read_stage(const StageFolder& stage, const Json& manifest, uint64_t seed) {
  StageFacts facts;
  facts.name = stage.name;
  facts.stage = manifest.at("stage").string();
  const Json counts = manifest.at("counts");
  facts.in = counts.at("in").integer();
  facts.out = counts.at("out").integer();
  facts.bad = counts.at("bad").integer();
  for (const Json& shard : manifest.at("shards").items()) {
    facts.text_bytes += static_cast<uint64_t>(shard.at("text_bytes").integer(0));
  }
  facts.kept = Samples(seed, stage.name);
  for (const fs::path& file : shards_in(stage.folder)) {
    each_record(file, [&](const Record& record) {
      count(record, true, facts);
      facts.kept.see([&] { return shown(record); });
    });
  }
  for (const fs::path& folder : dropped_folders(stage.folder)) {
    const std::string rule = folder.filename().string();
    RuleFacts& of_rule = facts.rules[rule];
    of_rule.samples = Samples(seed, stage.name + "/" + rule);
    for (const fs::path& file : shards_in(folder)) {
      each_record(file, [&](const Record& record) {
        count(record, false, facts);
        ++of_rule.count;
        const auto by = nlohmann::json::parse(record.raw("dropped_by"), nullptr, false);
        if (by.is_object() && by.value("value", nlohmann::json()).is_number()) {
          of_rule.values.push_back(by["value"].get<float>());
          of_rule.threshold = by.value("threshold", 0.0);
        }
        of_rule.samples.see([&] { return shown(record); });
      });
    }
  }
  return facts;
}

// Bars of one or two groups, the second upon the first, and a line at a threshold.
std::string histogram(const std::vector<float>& below, const std::vector<float>& above,
                      std::optional<double> threshold) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  const auto see = [&](double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  };
  for (const auto* values : {&below, &above}) {
    for (const float value : *values) see(static_cast<double>(value));
  }
  if (threshold && std::isfinite(*threshold)) see(*threshold);
  if (!(low <= high)) return {};
  const double width = high > low ? (high - low) / kBins : 1;
  std::vector<std::pair<int64_t, int64_t>> bins(kBins);
  const auto bin = [&](float value) {
    return std::min(kBins - 1, static_cast<size_t>((static_cast<double>(value) - low) / width));
  };
  for (const float value : below) ++bins[bin(value)].first;
  for (const float value : above) ++bins[bin(value)].second;
  int64_t most = 1;
  for (const auto& [a, b] : bins) most = std::max(most, a + b);
  constexpr double kWidth = 480, kHeight = 110, kBar = kWidth / kBins;
  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" width=\"{}\" role=\"img\">", kWidth,
                                kHeight + 18, kWidth);
  for (size_t i = 0; i < kBins; ++i) {
    const auto bar = [&](int64_t from, int64_t size, const char* name) {
      if (size == 0) return;
      const double scale = kHeight / static_cast<double>(most);
      out += fmt::format(
          "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", name,
          static_cast<double>(i) * kBar, kHeight - static_cast<double>(from + size) * scale,
          kBar - 1, static_cast<double>(size) * scale);
    };
    bar(0, bins[i].first, "kept");
    bar(bins[i].first, bins[i].second, "dropped");
  }
  if (threshold && high > low) {
    const double x = (*threshold - low) / (high - low) * kWidth;
    out += fmt::format("<line class=\"mark\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"0\" y2=\"{1}\"/>",
                       x, kHeight);
  }
  out += fmt::format(
      "<text x=\"0\" y=\"{0}\">{1:.4g}</text><text x=\"{2}\" y=\"{0}\" text-anchor=\"end\">{3:.4g}"
      "</text></svg>\n",
      kHeight + 14, low, kWidth, high);
  return out;
}

std::string counts_table(const std::string& title,
                         const std::map<std::string, std::pair<int64_t, int64_t>>& counts) {
  if (counts.size() == 1 && counts.begin()->first == "not said") return {};
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>> rows(counts.begin(),
                                                                        counts.end());
  std::ranges::stable_sort(rows, std::greater(),
                           [](const auto& row) { return row.second.first + row.second.second; });
  constexpr size_t kMost = 20;
  std::string out =
      fmt::format("<table><tr><th>{}<th>in<th>kept<th>kept %\n", escape_markup(title));
  for (size_t i = 0; i < rows.size() && i < kMost; ++i) {
    const auto [kept, dropped] = rows[i].second;
    out += fmt::format("<tr><td>{}<td>{}<td>{}<td>{:.1f}\n", escape_markup(rows[i].first),
                       kept + dropped, kept,
                       100 * static_cast<double>(kept) / static_cast<double>(kept + dropped));
  }
  if (rows.size() > kMost) out += fmt::format("<tr><td>and {} more\n", rows.size() - kMost);
  return out + "</table>\n";
}

// The threshold of a score is that of the rule of its name: "quality.classifier" of "quality".
std::optional<double> threshold_of(const StageFacts& facts, const std::string& score) {
  for (const auto& [rule, of_rule] : facts.rules) {
    if (rule.substr(0, rule.find('.')) == score && !of_rule.values.empty()) {
      return of_rule.threshold;
    }
  }
  return std::nullopt;
}

std::string stage_section(const StageFacts& facts) {
  std::string out = fmt::format("<h2 id=\"{0}\">{0} <small>{1}</small></h2>\n",
                                escape_markup(facts.name), escape_markup(facts.stage));
  out += counts_table("language", facts.languages) + counts_table("source", facts.sources);
  for (const auto& [name, score] : facts.scores) {
    out += fmt::format(
        "<h3>Score: {}</h3><p>All bars: before; <span class=\"key kept\"></span> kept, <span "
        "class=\"key dropped\"></span> dropped.</p>",
        escape_markup(name));
    out += histogram(score.kept, score.dropped, threshold_of(facts, name));
  }
  for (const auto& [rule, of_rule] : facts.rules) {
    out += fmt::format("<h3>{}: {} dropped</h3>\n", escape_markup(rule), of_rule.count);
    if (!of_rule.values.empty()) {
      out += fmt::format("<p>Their values; the threshold is {:.4g}.</p>", of_rule.threshold);
      out += histogram({}, of_rule.values, of_rule.threshold);
    }
    for (const std::string& sample : of_rule.samples.all()) out += sample;
  }
  out += fmt::format("<h3>Kept: {} of {}</h3>\n", facts.kept.all().size(), facts.out);
  for (const std::string& sample : facts.kept.all()) out += sample;
  return out;
}

constexpr std::string_view kHead =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
    "content=\"width=device-width\"><title>Data pipeline</title><style>:root{color-scheme:light "
    "dark;--kept:#2a7ab9;--dropped:#d9822b}body{font:15px/1.5 sans-serif;max-width:70em;margin:2em "
    "auto;padding:0 1em}table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .8em;"
    "border-bottom:1px solid #8884;text-align:right}td:first-child,th:first-child{text-align:left}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:.6em}small{"
    "font-weight:normal;opacity:.7}svg text{font:11px sans-serif;fill:currentColor}.kept{fill:"
    "var(--kept);background:var(--kept)}.dropped{fill:var(--dropped);background:var(--dropped)}"
    ".mark{stroke:currentColor;stroke-dasharray:4 3}.key{display:inline-block;width:.8em;height:"
    ".8em}.bar{display:inline-block;height:.7em;background:var(--kept)}summary{overflow-wrap:"
    "anywhere}#find{width:100%;box-sizing:border-box;font:inherit;padding:.4em;margin:1em 0}"
    "</style>\n";
constexpr std::string_view kScript =
    "<script>find.oninput=()=>{const word=find.value.toLowerCase();for(const d of "
    "document.querySelectorAll('details'))d.hidden=!d.textContent.toLowerCase().includes(word)}"
    "</script></html>\n";

// One stage's account of the document in `file`, where it is.
bool find_in(const fs::path& file, const std::string& id,
             const std::function<void(const Record&)>& see) {
  bool found = false;
  each_record(file, [&](const Record& record) {
    if (found || (record.string("id").value_or(std::string(record.raw("id"))) != id)) return;
    found = true;
    see(record);
  });
  return found;
}

// Every rule's value on a text, with the thresholds of the run.
std::string rule_values(const Record& record, const Json& settings) {
  const std::string text = record.string("text").value_or("");
  const bool chinese = record.string("lang").value_or("") == "zh";
  RuleJudge judge;
  std::string out;
  for (const Json& set : settings.at("rules").items()) {
    const auto known = text_rule_sets();
    if (std::ranges::find(known, set.string()) == known.end()) continue;
    judge.judge(
        set.string(), text, chinese, /*all=*/true, [&](std::string_view rule, double value) {
          for (const TextRule& one : text_rules()) {
            if (one.name != rule) continue;
            const double usual = chinese ? one.chinese : one.threshold;
            const double threshold = settings.number_or(rule, usual);
            const bool holds = one.at_least ? value >= threshold : value <= threshold;
            out += fmt::format("    {:<44}{:>12.5g}  {} {:<10.5g}{}\n", rule, value,
                               one.at_least ? ">=" : "<=", threshold, holds ? "" : "  fails");
          }
        });
  }
  return out;
}

}  // namespace

std::string pipeline_report(const std::vector<StageFolder>& stages, uint64_t seed) {
  std::vector<StageFacts> all;
  for (const StageFolder& stage : stages) {
    if (const auto manifest = manifest_of(stage.folder)) {
      all.push_back(read_stage(stage, *manifest, seed));
    }
  }
  int64_t most = 1;
  for (const StageFacts& facts : all) most = std::max(most, facts.in);
  std::string out(kHead);
  out +=
      "<h1>Data pipeline</h1>\n<table><tr><th>stage<th>in<th>out<th>dropped<th>bad<th>text, "
      "MB<th>\n";
  for (const StageFacts& facts : all) {
    out += fmt::format(
        "<tr><td><a href=\"#{0}\">{0}</a> <small>{1}</small><td>{2}<td>{3}<td>{4}<td>{5}<td>{6:.2f}"
        "<td style=\"text-align:left\"><span class=\"bar\" style=\"width:{7:.1f}em\"></span>\n",
        escape_markup(facts.name), escape_markup(facts.stage), facts.in, facts.out,
        std::max<int64_t>(0, facts.in - facts.out - facts.bad), facts.bad,
        static_cast<double>(facts.text_bytes) / 1e6,
        12 * static_cast<double>(std::min(facts.out, most)) / static_cast<double>(most));
  }
  out +=
      "</table>\n<input id=\"find\" type=\"search\" placeholder=\"Search the samples\" "
      "aria-label=\"Search the samples\">\n";
  for (const StageFacts& facts : all) out += stage_section(facts);
  return out + std::string(kScript);
}

std::string explain_document(const std::vector<StageFolder>& stages, const std::string& id) {
  std::string out;
  for (const StageFolder& stage : stages) {
    const std::optional<Json> manifest = manifest_of(stage.folder);
    if (!manifest) continue;
    const std::string use = manifest->at("stage").string();
    const auto account = [&](const Record& record, const std::string& verdict) {
      out += fmt::format("{} ({}): {}\n", stage.name, use, verdict);
      if (const auto text = record.string("text")) {
        out += fmt::format("    {} bytes of text\n", text->size());
      }
      const std::string_view scores = record.raw("scores");
      if (!scores.empty()) out += fmt::format("    scores {}\n", scores);
      if (use == "filter") out += rule_values(record, manifest->at("settings"));
    };
    bool found = false;
    for (const fs::path& file : shards_in(stage.folder)) {
      found = found || find_in(file, id, [&](const Record& record) { account(record, "kept"); });
    }
    for (const fs::path& folder : dropped_folders(stage.folder)) {
      for (const fs::path& file : shards_in(folder)) {
        found = found || find_in(file, id, [&](const Record& record) {
                  const auto by = nlohmann::json::parse(record.raw("dropped_by"), nullptr, false);
                  std::string verdict = "dropped by " + folder.filename().string();
                  if (by.is_object()) {
                    verdict += fmt::format(", value {}, threshold {}",
                                           dump(by.value("value", nlohmann::json())),
                                           dump(by.value("threshold", nlohmann::json())));
                  }
                  account(record, verdict);
                });
      }
    }
  }
  if (out.empty()) {
    throw_bad_input(fmt::format("no stage saw a document '{}'", printable(id, 80)),
                    "ids are those of the records");
  }
  return out;
}

}  // namespace quern
