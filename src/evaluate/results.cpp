#include "evaluate/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "core/json.h"
#include "core/markup.h"
#include "core/python_text.h"
#include "core/utf8.h"
#include "evaluate/prompts.h"
#include "plot/chart.h"

namespace quern {
namespace {

const MetricValue* first_value(const std::vector<std::pair<std::string, MetricValue>>& values) {
  return values.empty() ? nullptr : &values.front().second;
}

std::string number(const MetricValue* value) {
  return value == nullptr ? "-" : fmt::format("{:.2f}", value->value);
}

// Of the task's own metric; "-" where it is none.
std::string standard_error(const TaskRun& run) {
  const MetricValue* parity = first_value(run.score.summary.all.parity);
  if (parity == nullptr || run.score.task->kind == Task::Kind::Text) return "-";
  return fmt::format("{:.2f}", parity->standard_error);
}

// The memo's figure of its own model.
std::string memo_of(const Task& task) {
  const auto figures = memo_figures(task.name);
  if (figures.empty()) return "-";
  return fmt::format("{} {:.1f}", figures.back().model, figures.back().value);
}

// The number of items, or of measured texts, behind a run's figures.
size_t items_of(const TaskRun& run) {
  return run.score.task->kind == Task::Kind::Text ? run.items.size() : run.score.samples.size();
}

// The last `most` characters of a text.
std::string tail(const std::string& text, size_t most) {
  const std::u32string points = python::points(text);
  if (points.size() <= most) return text;
  std::string out = "…";
  for (size_t i = points.size() - most; i < points.size(); ++i) utf8::append(out, points[i]);
  return out;
}

bool went_wrong(const Sample& sample) {
  return sample.verdict.correct_fixed && *sample.verdict.correct_fixed < 1;
}

// Accuracy of each subject, sorted, as a chart; none for a task without subjects.
std::string subject_chart(const TaskRun& run) {
  std::map<std::string, std::pair<double, int64_t>> subjects;
  for (const Sample& sample : run.score.samples) {
    if (!sample.item->subset || !sample.verdict.correct) continue;
    auto& [sum, count] = subjects[*sample.item->subset];
    sum += 100 * *sample.verdict.correct;
    ++count;
  }
  // With fewer items of each, the curve would show the draw, not the subjects.
  constexpr size_t kLeastOfEach = 3;
  if (subjects.size() < 2 || run.score.samples.size() < kLeastOfEach * subjects.size()) return {};
  std::vector<double> means;
  for (const auto& [name, entry] : subjects) {
    means.push_back(entry.first / static_cast<double>(entry.second));
  }
  std::sort(means.begin(), means.end());
  Series series;
  series.markers = true;
  for (size_t i = 0; i < means.size(); ++i) {
    series.x.push_back(static_cast<double>(i + 1));
    series.y.push_back(means[i]);
  }
  const Chart chart{.title = run.score.task->title,
                    .x_label = "subjects, worst first",
                    .y_label = "percent right",
                    .series = {series}};
  return draw_svg({&chart, 1}, 1);
}

std::string wrong_items(const TaskRun& run) {
  constexpr size_t kShown = 50;
  std::string out;
  size_t wrong = 0;
  for (const Sample& sample : run.score.samples) {
    if (!went_wrong(sample) || ++wrong > kShown) continue;
    const Item& item = *sample.item;
    const std::string prompt = item.is_chat() ? item.messages.back().text() : item.prompt;
    out += fmt::format(
        "<details><summary>{}: {} for {}</summary><pre>{}</pre><pre>{}</pre></details>\n",
        escape_markup(item.id),
        escape_markup(sample.verdict.prediction_fixed.value_or("no answer")),
        escape_markup(item.target.value_or("the tests")), escape_markup(tail(prompt, 800)),
        escape_markup(tail(sample.response.text, 2000)));
  }
  if (wrong == 0) return {};
  return fmt::format("<h3>{} of {} items went wrong, {} are shown</h3>\n", wrong,
                     run.score.samples.size(), std::min(wrong, kShown)) +
         out;
}

}  // namespace

nlohmann::ordered_json result_json(const TaskRun& run, const std::string& model_path,
                                   const nlohmann::ordered_json& identity,
                                   const RunOptions& options) {
  const Task& task = *run.score.task;
  const auto field = [&](const char* name) {
    const auto found = identity.find(name);
    return found == identity.end() ? nlohmann::ordered_json() : *found;
  };
  nlohmann::ordered_json out = {{"task", task.name}, {"version", task.version}};
  out["model"] = {
      {"path", model_path}, {"sha256", field("weights_sha256")}, {"weights", field("weights")}};
  for (const char* name : {"tokenizer_sha256", "template", "rules", "kv_cache", "kernels"}) {
    out[name] = field(name);
  }
  out["settings"] = {{"shots", task.shots},
                     {"split", task.split},
                     {"limit", options.limit},
                     {"seed", options.seed},
                     {"pandas_none", options.items.pandas_none},
                     {"greedy", true}};
  if (options.samples_per_task > 1 && task.metric == "pass_at_1") {
    const SamplingOptions drawn = options.sampling.on({});
    out["settings"]["greedy"] = false;
    out["settings"]["samples_per_task"] = options.samples_per_task;
    out["settings"]["temperature"] = drawn.temperature;
    out["settings"]["top_p"] = drawn.top_p;
  }
  out["prompts_sha256"] = run.prompts_sha256;
  out.update(score_json(run.score));
  out["truncated"] = run.truncated;
  out["tokens"] = {
      {"prompt", run.prompt_tokens}, {"reused", run.reused_tokens}, {"new", run.new_tokens}};
  out["seconds"] = run.seconds;
  auto& samples = out["samples"] = nlohmann::ordered_json::array();
  for (const Sample& sample : run.score.samples) {
    nlohmann::ordered_json entry = {{"id", sample.item->id}};
    if (sample.verdict.correct) entry["correct"] = *sample.verdict.correct;
    if (sample.verdict.correct_fixed) entry["correct_fixed"] = *sample.verdict.correct_fixed;
    for (const auto& [name, value] : sample.verdict.details.items()) entry[name] = value;
    samples.push_back(std::move(entry));
  }
  return out;
}

std::string samples_jsonl(const TaskRun& run) {
  std::string text;
  for (size_t i = 0; i < run.score.samples.size(); ++i) {
    const Sample& sample = run.score.samples[i];
    const ItemAnswer& answer = run.answers[i];
    nlohmann::ordered_json line = sample_json(sample);
    line["prompt_sha256"] =
        sha256(sample.item->is_chat() ? dump(item_record(*sample.item)) : sample.item->prompt);
    if (sample.item->sample > 0) line["sample"] = sample.item->sample;
    line["prompt_tokens"] = answer.prompt_tokens;
    line["truncated"] = answer.truncated;
    line["finish"] = answer.finish;
    line["seconds"] = answer.seconds;
    text += dump(line) + "\n";
  }
  return text;
}

nlohmann::ordered_json submission_json(const TaskRun& run) {
  nlohmann::ordered_json out;
  for (const Sample& sample : run.score.samples) {
    out[sample.item->subset.value_or("")][fmt::format("{}", sample.item->index)] =
        sample.verdict.prediction.value_or("");
  }
  return out;
}

std::string result_table(std::span<const TaskRun> runs, const std::string& model) {
  size_t width = 34;
  for (const TaskRun& run : runs) {
    width = std::max(width, run.score.task->title.size());
    if (!run.table.empty()) continue;
    for (const auto& [name, metrics] : run.score.summary.groups) {
      width = std::max(width, name.size() + 2);
    }
  }
  std::string out = fmt::format("{}\n\n{:<{}} {:>6}  {:>8} {:>8}  {:>7}  {}\n", model, "", width,
                                "items", "parity", "fixed", "± ", "the memo");
  for (const TaskRun& run : runs) {
    const Task& task = *run.score.task;
    const MetricValue* parity = first_value(run.score.summary.all.parity);
    const MetricValue* fixed = first_value(run.score.summary.all.fixed);
    out += fmt::format("{:<{}} {:>6}  {:>8} {:>8}  {:>7}  {}\n", task.title, width, items_of(run),
                       number(parity), number(fixed), standard_error(run), memo_of(task));
    for (const auto& [metric, value] : run.score.summary.all.parity) {
      if (!run.table.empty() || metric == task.metric) continue;
      const auto& of_fixed = run.score.summary.all.fixed;
      const auto fixed_value =
          std::find_if(of_fixed.begin(), of_fixed.end(),
                       [&](const auto& entry) { return entry.first == metric; });
      out += fmt::format("  {:<{}} {:>6}  {:>8} {:>8}  {:>7.2f}\n", metric, width - 2, value.count,
                         number(&value),
                         number(fixed_value == of_fixed.end() ? nullptr : &fixed_value->second),
                         value.standard_error);
    }
    out += run.table;
    for (const auto& [name, metrics] : run.score.summary.groups) {
      if (!run.table.empty()) break;
      out += fmt::format("  {:<{}} {:>6}  {:>8} {:>8}\n", name, width - 2,
                         first_value(metrics.parity)->count, number(first_value(metrics.parity)),
                         number(first_value(metrics.fixed)));
    }
    std::string notes;
    if (run.truncated > 0) notes += fmt::format("  {} prompts were cut", run.truncated);
    if (run.score.ties > 0) notes += fmt::format("  {} ties at the top", run.score.ties);
    if (run.score.timeouts > 0) {
      notes += fmt::format("  {} programs ran out of time", run.score.timeouts);
    }
    if (run.score.unsafe) notes += "  programs ran without the sandbox";
    if (!notes.empty()) out += notes + "\n";
  }
  return out;
}

std::string result_csv(std::span<const TaskRun> runs, const std::string& model) {
  std::string out = "model,task,group,rule,metric,value,stderr,n\n";
  const auto add = [&](const TaskRun& run, const std::string& group, const char* rule,
                       const std::vector<std::pair<std::string, MetricValue>>& values) {
    for (const auto& [name, value] : values) {
      out += fmt::format("\"{}\",{},\"{}\",{},{},{},{},{}\n", python::replace(model, "\"", "\"\""),
                         run.score.task->name, group, rule, name, value.value, value.standard_error,
                         value.count);
    }
  };
  for (const TaskRun& run : runs) {
    add(run, "", "parity", run.score.summary.all.parity);
    add(run, "", "fixed", run.score.summary.all.fixed);
    for (const auto& [name, metrics] : run.score.summary.groups) {
      add(run, name, "parity", metrics.parity);
      add(run, name, "fixed", metrics.fixed);
    }
  }
  return out;
}

std::string result_html(std::span<const TaskRun> runs, const std::string& model) {
  const std::string name = escape_markup(std::filesystem::path(model).filename().string());
  std::string out =
      "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>Evaluation of " +
      name +
      "</title><style>:root{color-scheme:light dark}"
      "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
      "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #8884;"
      "text-align:right}td:first-child,th:first-child{text-align:left}pre{white-space:pre-wrap;"
      "background:#8882;padding:.6em}svg{background:#fff;max-width:100%;height:auto}</style>\n"
      "<h1>Evaluation of " +
      name + "</h1>\n<p>" + escape_markup(model) +
      "</p>\n<table><tr><th>task<th>items<th>parity<th>fixed<th>±<th>the memo\n";
  for (const TaskRun& run : runs) {
    const Task& task = *run.score.task;
    out += fmt::format("<tr><td><a href=\"#{}\">{}</a><td>{}<td>{}<td>{}<td>{}<td>{}\n",
                       escape_markup(task.name), escape_markup(task.title), items_of(run),
                       number(first_value(run.score.summary.all.parity)),
                       number(first_value(run.score.summary.all.fixed)), standard_error(run),
                       escape_markup(memo_of(task)));
  }
  out += "</table>\n";
  for (const TaskRun& run : runs) {
    const Task& task = *run.score.task;
    out +=
        fmt::format("<h2 id=\"{}\">{}</h2>\n<table><tr><th>model<th>{}\n", escape_markup(task.name),
                    escape_markup(task.title), escape_markup(task.metric));
    for (const MemoFigure& figure : memo_figures(task.name)) {
      out += fmt::format("<tr><td>{}<td>{:.1f}\n", figure.model, figure.value);
    }
    const std::string parity = number(first_value(run.score.summary.all.parity));
    const std::string fixed = number(first_value(run.score.summary.all.fixed));
    out +=
        fmt::format("<tr><td><b>{}</b>{}<td>{}\n", name, parity == fixed ? "" : ", parity", parity);
    if (parity != fixed && fixed != "-") {
      out += fmt::format("<tr><td><b>{}</b>, fixed<td>{}\n", name, fixed);
    }
    out += "</table>\n";
    if (!run.table.empty()) out += "<pre>" + escape_markup(run.table) + "</pre>\n";
    out += run.chart + subject_chart(run) + wrong_items(run);
  }
  return out + "</html>\n";
}

}  // namespace quern
