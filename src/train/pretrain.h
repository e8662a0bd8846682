// The training loop: batches in, steps taken, reports out.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "model/backward.h"
#include "train/checkpoint.h"
#include "train/communicator.h"
#include "train/gradient_tree.h"
#include "train/preference.h"

namespace quern {

struct StepReport {
  int64_t step = 0;    // from 1
  int64_t tokens = 0;  // seen so far
  double loss = 0, learning_rate = 0, gradient_norm = 0;
  double seconds = 0;  // of this step
  GradientGuard::Verdict verdict = GradientGuard::Verdict::Take;
  // Of preference optimization: the mean of beta times how much more likely the preferred answer has
  // become than the other, and the share of pairs where it has.
  double margin = 0, accuracy = 0;
};

struct ValidationReport {
  int64_t step = 0, tokens = 0;
  std::string source;
  double loss = 0;           // mean over tokens, in nats
  double bits_per_byte = 0;  // of text, which does not depend on the tokenizer
};

// What a run tells while it goes. Each call comes from the thread that trains.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void began(const RunState&) {}  // at 0, or where it was resumed
  virtual void stepped(const StepReport&) {}
  virtual void validated(const ValidationReport&) {}
  // Time for samples of text, should anyone want to see them.
  virtual void may_sample(int64_t /*step*/, const Weights&) {}
  virtual void saved(int64_t /*step*/) {}
  // Looked at after each step: the run saves a checkpoint and ends.
  virtual bool wants_stop() { return false; }
};

// What a run takes of memory, in bytes, and of arithmetic. Frozen: what isn't trained. Gradients: what they take beside the
// activations, among which they lie where a step is a single micro-batch.
struct RunEstimate {
  uint64_t trained = 0;  // parameters
  uint64_t frozen = 0, parameters = 0, gradients = 0, moments = 0, activations = 0,
           checkpoint_copies = 0;
  double tokens = 0;
  double flops_per_token = 0;  // forward and backward

  uint64_t total_bytes() const noexcept {
    return frozen + parameters + gradients + moments + activations + checkpoint_copies;
  }
};
RunEstimate estimate(const RunConfig& config, const Backend& backend);

// Whether pairs of answers are learnt from, and the sequences of a step: of each pair two.
bool learns_preferences(const RunConfig& config) noexcept;
int64_t sequences_of_step(const RunConfig& config) noexcept;

// Products and attention of one token, forward and backward, as PaLM's appendix B counts them: six
// times the matrices' parameters, and attention over half of `seq` on average.
double training_flops_per_token(const Config& config, int64_t seq);

class Pretraining {
 public:
  // `valid` and `train` belong to config.valid and config.train, in order. Throws BadInput for a
  // dataset of another vocabulary than the tokenizer's. `pool`: packs frozen weights.
  // `ranks`: who else trains this run; each takes its share of a step's micro-batches. Throws Misused
  // where they are more than the micro-batches, or don't divide them.
  Pretraining(Backend& backend, const RunConfig& config, std::vector<const Dataset*> train,
              std::vector<const Dataset*> valid, RunObserver& observer, ThreadPool* pool = nullptr,
              Communicator* ranks = nullptr);

  // Trains until config.steps or wants_stop(). Checkpoints go into `run`; with `resumed` it goes on
  // from the newest there. `files` as for CheckpointSaver. True if the last step was reached. Of
  // several ranks the first one saves; all stop where one is asked to.
  // Throws Failed when too many steps in a row had to be skipped.
  bool run(const fs::path& run, bool resumed, std::function<void(const fs::path&)> files);

 private:
  StepReport step();
  // The mean loss of the step's sequences; their gradient is in gradients().
  double forward_backward();
  Parameters& gradients() noexcept;
  bool any_rank(bool wish);
  void save(CheckpointSaver& saver);
  PreferenceLoss prefer(const GradientSink* sink);  // of its pairs
  void begin_parameters();
  void validate();
  LossSum validate_stream(const Dataset& data);
  LossSum validate_documents(const Dataset& data);
  PreferenceLoss validate_pairs(const Dataset& data);
  void dump_skipped(const fs::path& run, const StepReport& report) const;

  Backend& backend_;
  const RunConfig& config_;
  std::vector<const Dataset*> valid_;
  RunObserver& observer_;
  Loader loader_;
  std::optional<LoadedWeights>
      frozen_;             // of low-rank tuning, and what preferences are compared with
  Parameters parameters_;  // what is trained
  Weights weights_;        // both
  Optimizer optimizer_;
  TrainingPass pass_;
  std::unique_ptr<Communicator> alone_;  // where nobody else trains
  Communicator& ranks_;
  std::vector<size_t> shares_;  // bounds of the ranks' shares of the parameters; empty: no shares
  std::optional<GradientTree> tree_;  // where a step has several micro-batches
  std::optional<Parameters> sum_;  // their sum in turn, where ranks need not come to the same bits
  GradientGuard guard_;
  RunState state_;
  std::vector<int32_t> ids_, labels_, starts_;  // [batch, seq] of the step in progress
};

}  // namespace quern
