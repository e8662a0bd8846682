#include "train/pretrain.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "formats/gptq.h"
#include "model/gguf_names.h"
#include "train/adapter_files.h"

namespace quern {
namespace {

TrainingOptions training_options(const RunConfig& config, const Backend& backend) {
  const bool pairs =
      learns_preferences(config);  // a sequence at a time, whose gradients are added up
  return {.batch = pairs ? 1 : config.micro_batch,
          .seq = config.seq,
          .recomputed_layers = config.recompute_layers,
          .own_gradients = !pairs && config.micro_batch == config.batch,
          .trained = trained_specs(config),
          .rounded_activations = backend.rounds_products(),
          .dropout = static_cast<float>(config.dropout),
          .dropout_seed = config.seed,
          .lora_dropout =
              config.tune && config.tune->lora() ? static_cast<float>(config.tune->dropout) : 0,
          .embedding_noise = config.tune ? static_cast<float>(config.tune->neftune_alpha) : 0};
}

std::vector<LoaderSource> loader_sources(const RunConfig& config,
                                         const std::vector<const Dataset*>& train) {
  std::vector<LoaderSource> out;
  for (size_t i = 0; i < train.size(); ++i) out.push_back({train[i], config.train[i].weight});
  return out;
}

LoaderOptions loader_options(const RunConfig& config) {
  return {config.seq, config.seed, config.packing, config.isolate_documents};
}

const char* word(GradientGuard::Verdict verdict) {
  return verdict == GradientGuard::Verdict::Outlier ? "an outlier" : "not finite";
}

}  // namespace

bool learns_preferences(const RunConfig& config) noexcept {
  return config.tune && config.tune->preference;
}

int64_t sequences_of_step(const RunConfig& config) noexcept {
  return config.batch * (learns_preferences(config) ? 2 : 1);
}

double training_flops_per_token(const Config& config, int64_t seq) {
  return 6.0 * static_cast<double>(count_parameters(config).active_matmul) +
         6.0 * static_cast<double>(config.layers * config.query_dim() * seq);
}

RunEstimate estimate(const RunConfig& config, const Backend& backend) {
  RunEstimate out;
  for (const TensorSpec& spec : trained_specs(config)) {
    out.trained += static_cast<uint64_t>(spec.shape.count());
  }
  const bool lora = config.tune && config.tune->lora();
  const uint64_t block = out.trained * sizeof(float);
  if (lora || learns_preferences(config)) {
    for (const fs::path& file : weight_files(config.init_from)) out.frozen += fs::file_size(file);
  }
  out.parameters = block;
  out.moments = 2 * block;
  TrainingOptions options = training_options(config, backend);
  const uint64_t with_gradients = TrainingPass::memory_bytes(config.model, options);
  const bool own = std::exchange(options.own_gradients, false);
  out.activations = TrainingPass::memory_bytes(config.model, options);
  const int64_t parts = config.batch / config.micro_batch;
  const int64_t sums = config.deterministic && parts > 1 && !learns_preferences(config)
                           ? GradientTree::buffers(parts)
                           : 1;
  out.gradients = own ? with_gradients - out.activations : block * static_cast<uint64_t>(sums);
  out.checkpoint_copies = config.save_in_background ? 3 * block : 0;
  out.tokens = static_cast<double>(config.steps) *
               static_cast<double>(sequences_of_step(config) * config.seq);
  // Frozen matrices have no gradient of their own: a third of the products.
  out.flops_per_token = training_flops_per_token(config.model, config.seq) * (lora ? 2.0 / 3 : 1);
  // A pair is looked at twice more before its gradient, by the model and by its reference.
  if (learns_preferences(config)) out.flops_per_token *= lora ? 2 : 5.0 / 3;
  return out;
}

namespace {

void check_ranks(const RunConfig& config, const Communicator& ranks) {
  if (ranks.alone()) return;
  if (learns_preferences(config)) {
    throw Error(Kind::Unsupported, "preferences are learnt by one process",
                "start it without the launcher");
  }
  const int64_t parts = config.batch / config.micro_batch;
  if (parts % ranks.size() == 0) return;
  throw Error(
      Kind::Misused,
      fmt::format("{} ranks share {} micro-batches of a step, which does not come out even",
                  ranks.size(), parts),
      fmt::format("train.batch / train.micro_batch must be a multiple of {}", ranks.size()));
}

}  // namespace

Pretraining::Pretraining(Backend& backend, const RunConfig& config,
                         std::vector<const Dataset*> train, std::vector<const Dataset*> valid,
                         RunObserver& observer, ThreadPool* pool, Communicator* ranks)
    : backend_(backend),
      config_(config),
      valid_(std::move(valid)),
      observer_(observer),
      loader_(loader_sources(config, train), loader_options(config)),
      parameters_(backend, config.model, trained_specs(config)),
      optimizer_(backend, config.model, config.optimizer, parameters_.specs()),
      pass_(backend, config.model, training_options(config, backend)),
      alone_(ranks == nullptr ? make_alone() : nullptr),
      ranks_(ranks == nullptr ? *alone_ : *ranks),
      guard_(config.guard),
      ids_(static_cast<size_t>(sequences_of_step(config) * config.seq)),
      labels_(ids_.size()),
      starts_(ids_.size()) {
  if (config.tune && config.tune->lora()) {
    frozen_ = LoadedWeights::load(config.init_from, config.model, {.pool = pool});
    weights_ = parameters_.over(frozen_->weights());
  } else {
    if (learns_preferences(config)) {
      frozen_ = LoadedWeights::load(config.init_from, config.model, {.pool = pool});
    }
    weights_ = parameters_.weights();
  }
  check_ranks(config, ranks_);
  if (learns_preferences(config) || (config.micro_batch < config.batch && !config.deterministic)) {
    sum_.emplace(backend, config.model, parameters_.specs());
  } else if (config.micro_batch < config.batch) {
    tree_.emplace(backend, config.model, parameters_.specs());
  }
  if (!ranks_.alone() && config.zero == 1) {
    constexpr size_t kLine = 64;  // floats: shares begin where kernels' blocks do
    const size_t total = std::as_const(parameters_).all().size(),
                 count = static_cast<size_t>(ranks_.size());
    const size_t each = ((total + count - 1) / count + kLine - 1) / kLine * kLine;
    for (size_t r = 0; r <= count; ++r) shares_.push_back(std::min(total, r * each));
    const auto own = static_cast<size_t>(ranks_.rank());
    optimizer_.keep(shares_[own], shares_[own + 1]);
  }
  for (const std::vector<const Dataset*>* group : {&train, &valid_}) {
    for (const Dataset* data : *group) {
      if (data->manifest().vocab <= config.model.vocab) continue;
      throw_bad_input(
          fmt::format("{}: its ids go up to {}, the model has {} rows of embedding",
                      data->folder().string(), data->manifest().vocab - 1, config.model.vocab),
          "take a model with a larger vocab_size, or a smaller tokenizer");
    }
  }
}

bool Pretraining::run(const fs::path& run, bool resumed,
                      std::function<void(const fs::path&)> files) {
  CheckpointSaver saver(run, config_, backend_, std::move(files));
  if (resumed) {
    state_ = resume(run, config_, parameters_, optimizer_);
    loader_.seek(state_.position);
    guard_.restore(state_.guard);
    if (!shares_.empty()) optimizer_.release_others();
  } else {
    begin_parameters();
  }
  observer_.began(state_);
  bool stopping = false;
  while (state_.step < config_.steps && !stopping) {
    const StepReport report = step();
    observer_.stepped(report);
    if (report.verdict != GradientGuard::Verdict::Take) {
      if (ranks_.first()) dump_skipped(run, report);
      if (guard_.gives_up()) {
        saver.wait();
        throw Error(Kind::Failed,
                    fmt::format("the gradients of {} steps in a row were no good; the last, step "
                                "{}, is {} (loss {}, norm {})",
                                config_.guard.max_skips, report.step, word(report.verdict),
                                report.loss, report.gradient_norm),
                    "look at skipped/ in the run's folder; resume with a lower "
                    "optimizer.learning_rate");
      }
    }
    const bool last = state_.step == config_.steps;
    stopping = any_rank(observer_.wants_stop());
    if (last || state_.step % config_.validate_every == 0) validate();
    if (last || state_.step % config_.sample_every == 0) {
      observer_.may_sample(state_.step, weights_);
    }
    if (last || stopping || state_.step % config_.save_every == 0) save(saver);
  }
  saver.wait();
  ranks_.set_stage("the end");
  ranks_.barrier();
  return state_.step == config_.steps;
}

void Pretraining::save(CheckpointSaver& saver) {
  if (!shares_.empty()) {
    ranks_.collect(optimizer_.first().all(), shares_);
    ranks_.collect(optimizer_.second().all(), shares_);
  }
  if (ranks_.first()) {
    saver.save(state_, parameters_, optimizer_);
    observer_.saved(state_.step);
  }
  if (!shares_.empty()) optimizer_.release_others();
}

bool Pretraining::any_rank(bool wish) {
  const double mine[] = {wish ? 1.0 : 0.0};
  return std::ranges::any_of(ranks_.all_gather(std::span<const double>(mine)),
                             [](double one) { return one != 0; });
}

Parameters& Pretraining::gradients() noexcept {
  return sum_.has_value() ? *sum_ : tree_.has_value() ? tree_->total() : pass_.gradients().into;
}

void Pretraining::begin_parameters() {
  if (config_.tune && config_.tune->lora()) {
    parameters_.initialize(config_.model, config_.seed);
    for (size_t i = 0; i < parameters_.specs().size(); ++i) {  // what is trained in full
      const TensorSpec& spec = parameters_.specs()[i];
      if (spec.role != Role::Embedding && spec.role != Role::Head) continue;
      const Weights& base = frozen_->weights();
      std::vector<int32_t> rows(static_cast<size_t>(spec.shape[0]));
      std::iota(rows.begin(), rows.end(), 0);
      backend_.embed({parameters_.tensor(i).data(), spec.shape[0], spec.shape[1], spec.shape[1]},
                     spec.role == Role::Head ? base.lm_head.weight : base.embedding, rows);
    }
    return;
  }
  if (config_.init_from.empty()) return parameters_.initialize(config_.model, config_.seed);
  if (is_gguf(config_.init_from)) {
    return parameters_.load(gguf_tensors(config_.init_from, config_.model, {.blocks = DType::F32}));
  }
  if (read_gptq_config(config_.init_from)) {
    throw_bad_input(config_.init_from.string() + ": its weights are quantized by GPTQ",
                    "all parameters of a float model can be trained; of this one low-rank "
                    "updates: tune.method = \"lora\"");
  }
  parameters_.load(TensorStore::open(config_.init_from));
}

StepReport Pretraining::step() {
  const auto started = std::chrono::steady_clock::now();
  const auto seq = static_cast<size_t>(config_.seq);
  for (size_t at = 0; at < ids_.size(); at += seq) {
    loader_.next(std::span(ids_).subspan(at, seq), std::span(labels_).subspan(at, seq),
                 std::span(starts_).subspan(at, seq));
  }
  ranks_.set_stage(fmt::format("step {}", state_.step + 1));
  if (sum_.has_value()) sum_->clear(backend_);
  StepReport report;
  if (learns_preferences(config_)) {
    const GradientSink sink = {*sum_};
    const PreferenceLoss sums = prefer(&sink);
    const auto pairs = static_cast<double>(sums.pairs);
    report.loss = sums.loss / pairs;
    report.margin = sums.margin / pairs;
    report.accuracy = static_cast<double>(sums.preferred) / pairs;
  } else {
    report.loss = forward_backward();
  }
  ranks_.all_reduce(gradients().all());

  const GradientNorm norm = optimizer_.measure(gradients());
  report.step = state_.step + 1;
  report.gradient_norm = norm.norm;
  report.learning_rate = config_.schedule.rate_of_step(report.step);
  report.verdict = guard_.judge(report.loss, norm.norm);
  if (report.verdict == GradientGuard::Verdict::Take) {
    optimizer_.step(parameters_, gradients(), report.learning_rate, norm.scale);
    if (!shares_.empty()) ranks_.share_out(parameters_.all(), shares_);
  }
  state_.step = report.step;
  state_.tokens += sequences_of_step(config_) * config_.seq;
  state_.optimizer_steps = optimizer_.steps();
  state_.position = loader_.position();
  state_.guard = guard_.state();
  report.tokens = state_.tokens;
  report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

PreferenceLoss Pretraining::prefer(const GradientSink* sink) {
  return preference_pass(pass_, weights_, frozen_->weights(),
                         {sequences_of_step(config_), config_.seq, ids_, labels_, {}},
                         *config_.tune->preference, sink);
}

double Pretraining::forward_backward() {
  const auto seq = static_cast<size_t>(config_.seq);
  const std::span<const int32_t> starts =
      config_.isolate_documents ? std::span<const int32_t>(starts_) : std::span<const int32_t>();
  const TrainingBatch whole = {config_.batch, config_.seq, ids_, labels_, starts};
  // The mean over all labels of the step, however they fall into micro-batches. A step of padding
  // alone has no gradient.
  const int64_t count = std::max<int64_t>(1, whole.count_labels());
  const auto scale = static_cast<float>(1.0 / static_cast<double>(count));
  const size_t micro = static_cast<size_t>(config_.micro_batch) * seq;
  const auto micro_batches = static_cast<uint64_t>(config_.batch / config_.micro_batch);
  const uint64_t share = micro_batches / static_cast<uint64_t>(ranks_.size());
  const uint64_t first = share * static_cast<uint64_t>(ranks_.rank());
  std::vector<double> losses;
  if (tree_.has_value()) tree_->begin();
  for (uint64_t i = first; i < first + share; ++i) {
    const size_t at = i * micro;
    const TrainingBatch part = {config_.micro_batch, config_.seq, whole.ids.subspan(at, micro),
                                whole.labels.subspan(at, micro),
                                starts.empty() ? starts : starts.subspan(at, micro)};
    const uint64_t stream = static_cast<uint64_t>(state_.step) * micro_batches + i;
    const GradientSink sink = sum_.has_value()    ? GradientSink{*sum_}
                              : tree_.has_value() ? GradientSink{tree_->leaf()}
                                                  : pass_.gradients();
    losses.push_back(pass_.forward_backward(weights_, sink, part, scale, stream).loss);
    if (tree_.has_value()) tree_->close_leaf();
  }
  // Added in their order, whoever computed them.
  double loss = 0;
  for (const double one : ranks_.all_gather(std::span<const double>(losses))) loss += one;
  return loss / static_cast<double>(count);
}

void Pretraining::validate() {  // all ranks do, so that none waits for the first
  for (size_t source = 0; source < valid_.size(); ++source) {
    const Dataset& data = *valid_[source];
    if (learns_preferences(config_)) {
      const PreferenceLoss pairs = validate_pairs(data);
      ValidationReport report{state_.step, state_.tokens, config_.valid[source].name};
      report.loss = pairs.loss / static_cast<double>(std::max<int64_t>(1, pairs.pairs));
      observer_.validated(report);
      continue;
    }
    const LossSum sum = config_.tune && config_.packing == Packing::Documents
                            ? validate_documents(data)
                            : validate_stream(data);
    const DatasetManifest& manifest = data.manifest();
    ValidationReport report{state_.step, state_.tokens, config_.valid[source].name};
    report.loss = sum.loss / static_cast<double>(std::max<int64_t>(1, sum.count));
    report.bits_per_byte = report.loss / std::numbers::ln2 * static_cast<double>(manifest.tokens) /
                           static_cast<double>(std::max<int64_t>(1, manifest.text_bytes));
    observer_.validated(report);
  }
}

// The same windows each time: the stream from its beginning, uncut.
LossSum Pretraining::validate_stream(const Dataset& data) {
  std::vector<int32_t> ids(static_cast<size_t>(config_.micro_batch * config_.seq));
  std::vector<int32_t> labels(ids.size());
  const int64_t most = std::min(config_.validate_tokens, data.tokens());
  const int64_t windows = std::max<int64_t>(1, most / config_.seq);
  LossSum sum;
  for (int64_t first = 0; first < windows; first += config_.micro_batch) {
    const int64_t rows = std::min(config_.micro_batch, windows - first);
    for (int64_t row = 0; row < rows; ++row) {
      const auto at = static_cast<size_t>(row * config_.seq);
      const int64_t begin = (first + row) * config_.seq;
      const auto have = static_cast<size_t>(std::min(config_.seq, data.tokens() - begin));
      const auto seq = static_cast<size_t>(config_.seq);
      std::fill_n(labels.begin() + static_cast<ptrdiff_t>(at), seq, kIgnoredLabel);
      std::fill_n(ids.begin() + static_cast<ptrdiff_t>(at), seq, 0);
      data.read(begin, std::span(ids).subspan(at, have), std::span(labels).subspan(at, have));
    }
    const auto size = static_cast<size_t>(rows * config_.seq);
    const LossSum part = pass_.loss(weights_, {rows,
                                               config_.seq,
                                               std::span<const int32_t>(ids).first(size),
                                               std::span<const int32_t>(labels).first(size),
                                               {}});
    sum.loss += part.loss;
    sum.count += part.count;
  }
  return sum;
}

// Whole conversations, each for itself, in the order of a first epoch.
LossSum Pretraining::validate_documents(const Dataset& data) {
  Loader loader({{&data, 1}}, {config_.seq, /*seed=*/0, Packing::Documents, true});
  const int64_t most = std::max<int64_t>(1, config_.validate_tokens / config_.seq);
  const int64_t windows = std::min(most, loader.windows(0));
  std::vector<int32_t> ids(static_cast<size_t>(config_.seq)), labels(ids.size()),
      starts(ids.size());
  LossSum sum;
  for (int64_t i = 0; i < windows; ++i) {
    loader.next(ids, labels, starts);
    const LossSum part = pass_.loss(weights_, {1, config_.seq, ids, labels, starts});
    sum.loss += part.loss;
    sum.count += part.count;
  }
  return sum;
}

// The first pairs, in the order of a first epoch.
PreferenceLoss Pretraining::validate_pairs(const Dataset& data) {
  Loader loader({{&data, 1}}, {config_.seq, /*seed=*/0, Packing::Pairs, true});
  const int64_t most = std::max<int64_t>(1, config_.validate_tokens / config_.seq / 2);
  const int64_t pairs = std::min(most, loader.windows(0) / 2);
  std::vector<int32_t> ids(static_cast<size_t>(2 * config_.seq)), labels(ids.size()),
      starts(ids.size());
  const auto seq = static_cast<size_t>(config_.seq);
  PreferenceLoss sum;
  for (int64_t i = 0; i < pairs; ++i) {
    for (size_t at = 0; at < ids.size(); at += seq) {
      loader.next(std::span(ids).subspan(at, seq), std::span(labels).subspan(at, seq),
                  std::span(starts).subspan(at, seq));
    }
    const PreferenceLoss one =
        preference_pass(pass_, weights_, frozen_->weights(), {2, config_.seq, ids, labels, {}},
                        *config_.tune->preference, nullptr);
    sum.loss += one.loss;
    sum.pairs += one.pairs;
  }
  return sum;
}

void Pretraining::dump_skipped(const fs::path& run, const StepReport& report) const {
  const fs::path folder = run / "skipped";
  fs::create_directories(folder);
  const fs::path file = folder / fmt::format("step-{:08}.json", report.step);
  const auto number = [](double value) {
    return std::isfinite(value) ? nlohmann::ordered_json(value)
                                : nlohmann::ordered_json(fmt::format("{}", value));
  };
  const nlohmann::ordered_json json = {{"step", report.step},
                                       {"why", word(report.verdict)},
                                       {"loss", number(report.loss)},
                                       {"gradient_norm", number(report.gradient_norm)},
                                       {"batch", config_.batch},
                                       {"seq", config_.seq},
                                       {"ids", ids_}};
  write_file(file, dump(json) + "\n");
  log::warning(fmt::format(
      "step {} is skipped: its gradient is {} (loss {:.4f}, norm {:.4g}); its "
      "ids are in {}",
      report.step, word(report.verdict), report.loss, report.gradient_norm, file.string()));
}

}  // namespace quern
