#include "evaluate/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/python_text.h"
#include "evaluate/mean.h"
#include "evaluate/tasks/all.h"

namespace quern {
namespace {

// Percent right over items, or over the subjects' means.
std::optional<MetricValue> percent(std::span<const Judged> judged, Average average,
                                   std::optional<double> ItemVerdict::*score,
                                   const std::vector<std::string>* subjects) {
  Mean all;
  std::map<std::string, Mean> by_subject;
  for (const Judged& entry : judged) {
    if (!(entry.verdict->*score)) continue;
    const std::string subject = entry.item->subset.value_or("");
    if (subjects != nullptr &&
        std::find(subjects->begin(), subjects->end(), subject) == subjects->end()) {
      continue;
    }
    all.add(100 * *(entry.verdict->*score));
    by_subject[subject].add(100 * *(entry.verdict->*score));
  }
  if (all.count == 0) return {};
  MetricValue value = all.value();
  if (average == Average::Subjects) {
    double squares = 0;
    Mean means;
    bool single = false;  // a subject of one item, which tells nothing of its spread
    for (const auto& [name, mean] : by_subject) {
      means.add(mean.mean());
      squares += mean.error() * mean.error();
      single |= mean.count < 2;
    }
    value.value = means.mean();
    value.standard_error =
        single ? means.error() : std::sqrt(squares) / static_cast<double>(by_subject.size());
  }
  return value;
}

}  // namespace

const std::vector<Task>& tasks() {
  static const std::vector<Task> all = {
      ceval_task(),          ceval_test_task(),  mmlu_task(),
      cmmlu_task(),          humaneval_task(),   mbpp_task(),
      gsm8k_task(),          svamp_task(),       aqua_task(),
      wmt22_zh_en_task(),    wmt22_en_zh_task(), wikitext2_task(),
      longdocs_task(),       chat_ceval_task(),  chat_mmlu_task(),
      chat_humaneval_task(), chat_gsm8k_task(),  chat_gsm8k_4shot_task(),
      plugins_task(),        plugins_own_task(), hfagent_task(),
      safety_task(),
  };
  return all;
}

std::vector<std::string> task_groups() {
  std::vector<std::string> groups = {"all"};
  for (const Task& task : tasks()) {
    for (const std::string& group : task.groups) {
      if (std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
    }
  }
  return groups;
}

namespace {

[[noreturn]] void unknown_task(std::string_view name) {
  std::vector<std::string> known = task_groups();
  for (const Task& task : tasks()) known.push_back(task.name);
  const std::string near = nearest(name, known);
  throw Error(Kind::Misused, fmt::format("there is no task '{}'", printable(name, 60)),
              near.empty()
                  ? "quern eval list names them all"
                  : fmt::format("did you mean '{}'? quern eval list names them all", near));
}

}  // namespace

const Task& find_task(std::string_view name) {
  for (const Task& task : tasks()) {
    if (task.name == name) return task;
  }
  unknown_task(name);
}

std::vector<const Task*> select_tasks(std::span<const std::string> words) {
  const auto named = [](const Task& task, const std::string& word) {
    return word == "all" || task.name == word ||
           std::find(task.groups.begin(), task.groups.end(), word) != task.groups.end();
  };
  for (const std::string& word : words) {
    const bool known = std::any_of(tasks().begin(), tasks().end(),
                                   [&](const Task& task) { return named(task, word); });
    if (!known) unknown_task(word);
  }
  std::vector<const Task*> selected;
  for (const Task& task : tasks()) {
    if (std::any_of(words.begin(), words.end(),
                    [&](const std::string& word) { return named(task, word); })) {
      selected.push_back(&task);
    }
  }
  return selected;
}

Summary mean_summary(std::span<const Judged> judged, const std::string& metric, Average average,
                     const std::vector<std::pair<std::string, std::vector<std::string>>>& groups) {
  const auto metrics = [&](const std::vector<std::string>* subjects) {
    Metrics out;
    if (const auto value = percent(judged, average, &ItemVerdict::correct, subjects)) {
      out.parity.emplace_back(metric, *value);
    }
    if (const auto value = percent(judged, average, &ItemVerdict::correct_fixed, subjects)) {
      out.fixed.emplace_back(metric, *value);
    }
    return out;
  };
  Summary summary;
  summary.all = metrics(nullptr);
  for (const auto& [name, subjects] : groups) {
    Metrics group = metrics(&subjects);
    if (!group.parity.empty()) summary.groups.emplace_back(name, std::move(group));
  }
  return summary;
}

ItemVerdict judge_choice(const Item& item, const Response& response, const JudgeContext&) {
  ItemVerdict verdict;
  std::optional<size_t> chosen;
  if (!response.choice_logprobs.empty()) {
    const auto& scores = response.choice_logprobs;
    const auto best = std::max_element(scores.begin(), scores.end());
    chosen = static_cast<size_t>(best - scores.begin());
    verdict.tie = std::count(scores.begin(), scores.end(), *best) > 1;
  } else {
    // A text that begins with a letter which stands alone.
    const std::string_view text = python::lstrip(response.text);
    for (size_t i = 0; i < item.choices.size() && !chosen; ++i) {
      const std::string_view letter = python::strip(item.choices[i]);
      const bool alone = text.size() == letter.size() ||
                         (text.size() > letter.size() &&
                          std::isalnum(static_cast<unsigned char>(text[letter.size()])) == 0);
      if (text.starts_with(letter) && alone) chosen = i;
    }
  }
  if (chosen) verdict.prediction = python::strip(item.choices[*chosen]);
  verdict.prediction_fixed = verdict.prediction;
  if (item.target) {
    verdict.correct = chosen && item.choices[*chosen] == *item.target;
    verdict.correct_fixed = verdict.correct;
  }
  return verdict;
}

}  // namespace quern
