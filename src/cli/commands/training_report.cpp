#include "cli/commands/training_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cmath>

#include "cli/commands/arguments.h"
#include "core/error.h"
#include "generate/engine.h"

namespace quern::cli {
namespace {

constexpr const char* kMetricsHeader =
    "step,tokens,seconds,loss,lr,grad_norm,tokens_per_s,share_of_peak";
constexpr const char* kValidationHeader = "step,tokens,source,loss,bits_per_byte";

// Makes `path` a CSV file that holds the rows up to `step`, and returns its last row. What a killed
// run wrote past its last checkpoint is written again when the run comes to it again.
std::string cut_rows(const fs::path& path, const std::string& header, int64_t step) {
  std::string kept = std::string(header) + "\n", last;
  std::ifstream old(path);
  std::string line;
  std::getline(old, line);
  while (std::getline(old, line)) {
    int64_t row = 0;
    const auto [end, failure] = std::from_chars(line.data(), line.data() + line.size(), row);
    if (failure != std::errc{} || row > step || old.eof()) break;
    kept += line + "\n";
    last = line;
  }
  old.close();
  write_file(path, kept);
  return last;
}

void append(const fs::path& path, const std::string& row) {
  std::ofstream out(path, std::ios::app);
  out << row << '\n';
  if (!out.flush()) {
    throw Error(Kind::NoResources, path.string() + ": cannot be written to", "is the disk full?");
  }
}

// What this process holds of the machine's memory, in bytes.
uint64_t resident_memory() {
  std::ifstream file("/proc/self/statm");
  uint64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

double wall_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

std::string metrics_header(const RunConfig& config) {
  return std::string(kMetricsHeader) + (learns_preferences(config) ? ",margin,accuracy" : "");
}

}  // namespace

TrainingReport::TrainingReport(const RunConfig& config, const Tokenizer& tokenizer,
                               CpuTrainingBackend& backend, fs::path run)
    : config_(config),
      tokenizer_(tokenizer),
      backend_(backend),
      run_(std::move(run)),
      flops_per_token_(estimate(config, backend).flops_per_token) {}

void TrainingReport::began(const RunState& state) {
  const std::string last = cut_rows(run_ / "metrics.csv", metrics_header(config_), state.step);
  cut_rows(run_ / "validation.csv", kValidationHeader, state.step);
  for (size_t at = 0, column = 0; column < 2 && at != std::string::npos; ++column) {
    at = last.find(',', at);
    if (at != std::string::npos) seconds_ = std::strtod(last.c_str() + ++at, nullptr);
  }
  events_.emplace(run_, state.step + 1, wall_seconds());
  peak_ = backend_.measured_peak();
  progress_ = std::make_unique<Progress>("training", static_cast<uint64_t>(config_.steps), "steps",
                                         static_cast<uint64_t>(state.step));
}

void TrainingReport::stepped(const StepReport& report) {
  const double rate =
      static_cast<double>(sequences_of_step(config_) * config_.seq) / report.seconds;
  const double share = rate * flops_per_token_ / peak_;
  seconds_ += report.seconds;
  std::string row =
      fmt::format("{},{},{:.3f},{:.6g},{:.6g},{:.6g},{:.1f},{:.4f}", report.step, report.tokens,
                  seconds_, report.loss, report.learning_rate, report.gradient_norm, rate, share);
  std::string preferred;
  if (learns_preferences(config_)) {
    row += fmt::format(",{:.6g},{:.6g}", report.margin, report.accuracy);
    preferred =
        fmt::format(", margin {:.3f}, {:.0f} % right", report.margin, 100 * report.accuracy);
  }
  append(run_ / "metrics.csv", row);
  const double now = wall_seconds();
  const std::pair<const char*, double> scalars[] = {{"train/loss", report.loss},
                                                    {"train/learning_rate", report.learning_rate},
                                                    {"train/gradient_norm", report.gradient_norm},
                                                    {"train/tokens_per_s", rate}};
  for (const auto& [tag, value] : scalars) events_->scalar(tag, report.step, now, value);
  note_ = fmt::format("loss {:.4f}{}, {} tokens/s, lr {:.2e}, norm {:.3f}, {}, {:.0f} % of peak",
                      report.loss, preferred, human_count(static_cast<uint64_t>(rate)),
                      report.learning_rate, report.gradient_norm, human_bytes(resident_memory()),
                      100 * share);
  progress_->update(static_cast<uint64_t>(report.step), note_);
}

void TrainingReport::say(const std::string& line) {
  progress_->clear();
  print(line + "\n");
  flush_output();
}

void TrainingReport::validated(const ValidationReport& report) {
  append(run_ / "validation.csv", fmt::format("{},{},{},{:.6f},{:.6f}", report.step, report.tokens,
                                              report.source, report.loss, report.bits_per_byte));
  events_->scalar("valid/" + report.source + "/loss", report.step, wall_seconds(), report.loss);
  if (learns_preferences(config_)) {
    return say(
        fmt::format("step {}: {} preference loss {:.4f}", report.step, report.source, report.loss));
  }
  say(fmt::format("step {}: {} loss {:.4f}, perplexity {:.2f}, {:.4f} bits per byte", report.step,
                  report.source, report.loss, std::exp(report.loss), report.bits_per_byte));
}

void TrainingReport::may_sample(int64_t step, const Weights& weights) {
  for (const std::string& prompt : config_.sample_prompts) {
    Engine engine({backend_, config_.model, weights}, &tokenizer_, {});
    Request request;
    request.ids = tokenizer_.encode(prompt, SpecialPolicy::all());
    request.sampling.temperature = 0.8;
    request.sampling.top_p = 0.9;
    request.sampling.seed = config_.seed;
    request.max_new_tokens = config_.sample_tokens;
    if (const auto end = tokenizer_.eos()) request.stop.ids.push_back(*end);
    const Completion answer = engine.run({request})[0];
    say(fmt::format("step {}: {}{}", step, for_terminal(prompt), for_terminal(answer.text)));
  }
}

bool TrainingReport::wants_stop() { return interrupted; }

void TrainingReport::finish(bool done) {
  if (done) progress_->finish(note_);
  progress_->clear();
}

}  // namespace quern::cli
