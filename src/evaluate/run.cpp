#include "evaluate/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "core/json.h"
#include "core/rng.h"
#include "evaluate/metrics/pass_at_k.h"
#include "evaluate/prompts.h"

namespace quern {
namespace {

void shuffle(std::vector<size_t>& list, Rng& rng) {
  for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[rng.below(i)]);
}

// Scores that say nothing: every item has one log-probability for all its choices.
void refuse_equal_choices(const Task& task, const std::vector<Sample>& samples) {
  constexpr size_t kEnough = 3;
  size_t equal = 0;
  for (const Sample& sample : samples) {
    const auto& scores = sample.response.choice_logprobs;
    if (scores.empty()) return;
    equal += std::all_of(scores.begin(), scores.end(),
                         [&](double score) { return score == scores.front(); });
  }
  if (samples.size() < kEnough || equal < samples.size()) return;
  throw Error(Kind::Failed,
              fmt::format("{}: all choices of all {} items have the same log-probability",
                          task.name, samples.size()),
              "the model or server gives none: its answers would all be A");
}

// pass@k of what was drawn, for 1, 10, 100 as far as there are so many.
void add_pass_at_k(TaskScore& score, int64_t samples) {
  for (const bool fixed : {false, true}) {
    std::map<std::string, SampleCounts> items;
    for (const Sample& sample : score.samples) {
      SampleCounts& counts = items[sample.item->id];
      ++counts.samples;
      counts.passed += (fixed ? sample.verdict.correct_fixed : sample.verdict.correct) == 1;
    }
    std::vector<SampleCounts> counts;
    for (const auto& [id, of_item] : items) counts.push_back(of_item);
    auto& values = fixed ? score.summary.all.fixed : score.summary.all.parity;
    values.clear();
    const auto n = static_cast<double>(counts.size());
    for (const int64_t k : {1, 10, 100}) {
      if (k > samples) break;
      // The error is over the items: draws of one item are no independent items.
      double sum = 0, squares = 0;
      for (const SampleCounts& of_item : counts) {
        const double x = 100 * pass_at_k(of_item, k);
        sum += x;
        squares += x * x;
      }
      const double variance = n < 2 ? 0 : std::max(0.0, (squares - sum * sum / n) / (n - 1));
      values.emplace_back(
          fmt::format("pass_at_{}", k),
          MetricValue{sum / n, std::sqrt(variance / n), static_cast<int64_t>(counts.size())});
    }
  }
}

}  // namespace

std::vector<Item> draw_items(std::vector<Item> items, int64_t limit, uint64_t seed) {
  if (limit <= 0 || static_cast<int64_t>(items.size()) <= limit) return items;
  std::map<std::string, std::vector<size_t>> by_subject;
  for (size_t i = 0; i < items.size(); ++i) by_subject[items[i].subset.value_or("")].push_back(i);
  std::vector<std::vector<size_t>> subjects;
  uint64_t stream = 0;
  for (auto& [name, members] : by_subject) {
    Rng rng(seed, ++stream);
    shuffle(members, rng);
    subjects.push_back(std::move(members));
  }
  // Which subjects get one more is drawn, too.
  std::vector<size_t> order(subjects.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  Rng rng(seed);
  shuffle(order, rng);
  std::vector<size_t> chosen;
  for (size_t round = 0; static_cast<int64_t>(chosen.size()) < limit; ++round) {
    for (const size_t subject : order) {
      if (round < subjects[subject].size() && static_cast<int64_t>(chosen.size()) < limit) {
        chosen.push_back(subjects[subject][round]);
      }
    }
  }
  std::sort(chosen.begin(), chosen.end());
  std::vector<Item> drawn;
  for (const size_t i : chosen) drawn.push_back(std::move(items[i]));
  return drawn;
}

TaskRun measure_task(const Task& task, const DataFolder& data, TextMeter& meter,
                     const RunOptions& options) {
  TaskRun run;
  run.items = task.load(data, options.items);
  std::string records;
  for (const Item& item : run.items) records += dump(item_record(item)) + "\n";
  run.prompts_sha256 = sha256(records);
  run.score.task = &task;
  Measured measured = task.measure(run.items, meter);
  run.score.summary = std::move(measured.summary);
  run.table = std::move(measured.table);
  run.chart = std::move(measured.chart);
  run.prompt_tokens = meter.tokens();
  run.seconds = meter.seconds();
  return run;
}

TaskRun run_task(const Task& task, const DataFolder& data, AnswerSource& source,
                 const RunOptions& options) {
  TaskRun run;
  run.items = draw_items(task.load(data, options.items), options.limit, options.seed);
  const bool draws = options.samples_per_task > 1 && task.runs_code && task.metric == "pass_at_1";
  if (draws) {
    std::vector<Item> drawn;
    for (const Item& item : run.items) {
      for (int64_t i = 0; i < options.samples_per_task; ++i) {
        drawn.push_back(item);
        drawn.back().sample = i;
      }
    }
    run.items = std::move(drawn);
  }
  std::string records;
  for (const Item& item : run.items) records += dump(item_record(item)) + "\n";
  run.prompts_sha256 = sha256(records);

  const nlohmann::ordered_json identity = source.identity();
  std::vector<std::optional<ItemAnswer>> answers(run.items.size());
  std::vector<std::string> keys(run.items.size());
  std::vector<Question> questions;
  std::vector<size_t> asked;
  int64_t done = 0;
  for (size_t i = 0; i < run.items.size(); ++i) {
    const Question question{&run.items[i], task.cut_above, task.complete,
                            draws ? &options.sampling : nullptr};
    keys[i] = answer_key(identity, question, task.version);
    if (options.store != nullptr) answers[i] = options.store->find(keys[i]);
    if (answers[i]) {
      ++done;
      continue;
    }
    if (static_cast<int64_t>(i) % options.shares != options.share) continue;
    questions.push_back(question);
    asked.push_back(i);
  }
  const auto all = static_cast<int64_t>(run.items.size());
  if (options.on_answer) options.on_answer(done, all);
  static const std::atomic<bool> never = false;
  const std::atomic<bool>& cancel = options.cancel != nullptr ? *options.cancel : never;
  source.answer(
      questions,
      [&](size_t index, ItemAnswer answer) {
        const size_t i = asked[index];
        if (options.store != nullptr) options.store->keep(keys[i], answer);
        answers[i] = std::move(answer);
        ++done;
        if (options.on_answer) options.on_answer(done, all);
      },
      cancel);
  if (options.shares > 1 && !cancel) return run;
  if (done < all) {
    throw Error(Kind::Partial, fmt::format("{}: {} of {} items are answered", task.name, done, all),
                options.store != nullptr ? "the same command goes on from there"
                                         : "nothing was kept: --no-cache");
  }
  std::vector<Sample> samples;
  for (size_t i = 0; i < run.items.size(); ++i) {
    const ItemAnswer& answer = *answers[i];
    samples.push_back({&run.items[i], answer.response, {}});
    run.truncated += answer.truncated;
    run.prompt_tokens += answer.prompt_tokens;
    run.reused_tokens += answer.reused_tokens;
    run.new_tokens += answer.new_tokens;
    run.seconds += answer.seconds;
    run.answers.push_back(answer);
  }
  refuse_equal_choices(task, samples);
  run.score = score_task(task, data, std::move(samples), options.score);
  if (draws) add_pass_at_k(run.score, options.samples_per_task);
  return run;
}

}  // namespace quern
