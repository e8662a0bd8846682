#include "evaluate/score.h"

#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/thread_pool.h"
#include "evaluate/judge_programs.h"

namespace quern {
namespace {

nlohmann::ordered_json value_json(const MetricValue& value) {
  return {{"value", value.value}, {"stderr", value.standard_error}, {"n", value.count}};
}

nlohmann::ordered_json values_json(const std::vector<std::pair<std::string, MetricValue>>& values) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const auto& [name, value] : values) out[name] = value_json(value);
  return out;
}

// Judges every sample; those that run programs several at a time.
void judge_all(const Task& task, std::vector<Sample>& samples, const JudgeContext& context,
               const ScoreOptions& options) {
  int workers = options.workers > 0 ? options.workers : ThreadPool::available_cores();
  if (!task.runs_code) workers = 1;
  workers = std::min<int>(workers, static_cast<int>(std::max<size_t>(samples.size(), 1)));
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  int64_t done = 0;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (size_t i; (i = next++) < samples.size();) {
        samples[i].verdict = task.judge(*samples[i].item, samples[i].response, context);
        const std::lock_guard lock(mutex);
        ++done;
        if (options.on_progress) options.on_progress(done);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      next = samples.size();
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < workers; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

TaskScore score_task(const Task& task, const DataFolder& data, std::vector<Sample> samples,
                     const ScoreOptions& options) {
  if (task.kind == Task::Kind::Text) {
    throw Error(Kind::Misused,
                task.name + ": is measured on a model, there are no answers to score",
                "quern eval " + task.name + " --model MODEL");
  }
  TaskScore score;
  score.task = &task;
  score.samples = std::move(samples);
  if (task.needs_tokenizer && options.tokenizer == nullptr) {
    throw Error(Kind::Misused,
                task.name + ": its score is over the tokens of the model's tokenizer",
                "name it with --tokenizer");
  }
  ProgramJudge programs(options.python);
  JudgeContext context;
  context.tokenizer = options.tokenizer;
  context.programs = &programs;
  if (task.runs_code) {
    check_python(options.python);
    score.unsafe = options.python.unsafe;
  }
  judge_all(task, score.samples, context, options);
  std::vector<Judged> judged;
  for (const Sample& sample : score.samples) {
    judged.push_back({sample.item, &sample.verdict});
    score.ties += sample.verdict.tie;
    score.timeouts += sample.verdict.timed_out;
  }
  score.summary = task.summarize(data, judged);
  return score;
}

std::unordered_map<std::string, Response> read_responses(const fs::path& path) {
  std::unordered_map<std::string, Response> responses;
  for_each_record(path, [&](const Json& record, int64_t) {
    const std::string& id = record.at("id").string();
    Response response;
    if (const auto logprobs = record.find("choice_logprobs")) {
      if (record.has("response")) logprobs->fail("stands beside a response", "give one of them");
      for (const Json& value : logprobs->items()) {
        response.choice_logprobs.push_back(value.number());
      }
      if (response.choice_logprobs.empty()) logprobs->fail("is empty");
    } else {
      response.text = record.at("response").string();
    }
    if (!responses.emplace(id, std::move(response)).second) {
      record.at("id").fail("'" + printable(id, 80) + "' has an answer already",
                           "a file holds one answer for each item");
    }
  });
  return responses;
}

std::vector<Sample> match_responses(const std::vector<Item>& items,
                                    std::unordered_map<std::string, Response> responses,
                                    const std::string& source, bool partial, int64_t& missing) {
  std::vector<Sample> samples;
  const Item* first_missing = nullptr;
  missing = 0;
  for (const Item& item : items) {
    const auto found = responses.find(item.id);
    if (found == responses.end()) {
      if (first_missing == nullptr) first_missing = &item;
      ++missing;
      continue;
    }
    const size_t choices = found->second.choice_logprobs.size();
    if (choices > 0 && choices != item.choices.size()) {
      throw_bad_input(fmt::format("{}: {} has {} log-probabilities, the item has {} choices",
                                  source, item.id, choices, item.choices.size()));
    }
    samples.push_back({&item, std::move(found->second), {}});
    responses.erase(found);
  }
  if (!responses.empty()) {
    throw_bad_input(fmt::format("{}: {} of its ids are no items of the task, the first is '{}'",
                                source, responses.size(), printable(responses.begin()->first, 80)),
                    "quern eval prompts writes the items with their ids");
  }
  if (missing > 0 && !partial) {
    throw_bad_input(fmt::format("{}: {} of {} items have no answer, the first is {}", source,
                                missing, items.size(), first_missing->id),
                    "--partial scores those that are there");
  }
  if (samples.empty()) throw_bad_input(source + ": holds no answer to any item of the task");
  return samples;
}

nlohmann::ordered_json score_json(const TaskScore& score) {
  nlohmann::ordered_json out;
  out["results"] = {{"parity", values_json(score.summary.all.parity)},
                    {"fixed", values_json(score.summary.all.fixed)}};
  auto& groups = out["groups"] = nlohmann::ordered_json::object();
  for (const auto& [name, metrics] : score.summary.groups) {
    auto& group = groups[name] = values_json(metrics.parity);
    for (const auto& [metric, value] : metrics.fixed) {
      group[metric + "_fixed"] = value_json(value);
    }
  }
  out["items"] = score.samples.size();
  out["missing"] = score.missing;
  out["ties"] = score.ties;
  out["timeouts"] = score.timeouts;
  if (score.unsafe) out["unsafe_no_sandbox"] = true;
  return out;
}

nlohmann::ordered_json sample_json(const Sample& sample) {
  const auto text = [](const std::optional<std::string>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  // Right and wrong are booleans; shares are numbers.
  const auto right = [](const std::optional<double>& value) {
    if (!value) return nlohmann::ordered_json(nullptr);
    if (*value == 0 || *value == 1) return nlohmann::ordered_json(*value == 1);
    return nlohmann::ordered_json(*value);
  };
  const Item& item = *sample.item;
  nlohmann::ordered_json out = {
      {"id", item.id}, {"task", item.task}, {"subset", text(item.subset)}, {"index", item.index}};
  if (sample.response.choice_logprobs.empty()) {
    out["response"] = sample.response.text;
  } else {
    out["choice_logprobs"] = sample.response.choice_logprobs;
  }
  out["prediction"] = text(sample.verdict.prediction);
  out["prediction_fixed"] = text(sample.verdict.prediction_fixed);
  out["target"] = text(item.target);
  out["correct"] = right(sample.verdict.correct);
  out["correct_fixed"] = right(sample.verdict.correct_fixed);
  if (sample.verdict.timed_out) out["timed_out"] = true;
  for (const auto& [name, value] : sample.verdict.details.items()) out[name] = value;
  return out;
}

}  // namespace quern
