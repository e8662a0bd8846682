// A training run as its TOML file describes it. Every key is listed once, in run_config.cpp.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_labels.h"
#include "data/documents.h"
#include "data/loader.h"
#include "model/config.h"
#include "model/tensors.h"
#include "train/gradient_guard.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace quern {

struct RunSource {
  std::string name;
  fs::path path;                // a dataset's folder
  std::vector<fs::path> files;  // or documents, packed when the run begins
  DocumentOptions documents;    // how to read these
  double weight = 1;
  bool preferences = false;  // the files hold pairs of answers
  // Fine-tuning: the files hold conversations, written and labelled as the model's format says.
  bool chat = false;
  ConversationForm form = ConversationForm::Auto;
  ChatMask mask = ChatMask::Memo;
  LongChat when_long = LongChat::Drop;
  bool strict = false;
};

// What quern finetune trains, beside what quern pretrain's file says.
struct TuneOptions {
  enum class Method : uint8_t { Full, Lora };
  Method method = Method::Lora;
  int64_t rank = 64;
  double alpha = 16;
  double dropout = 0.05;
  std::vector<std::string> targets;        // names of modules or their ends, each with a match
  std::vector<std::string> saved_modules;  // trained and kept in full: the embedding, the head
  bool rank_stabilized = false;            // alpha / sqrt(rank) instead of alpha / rank
  double neftune_alpha = 0;                // 0: no noise
  // Direct preference optimization (Rafailov et al. 2023), or with the squared loss of IPO (Azar et al.
  // 2023), against the model that the run began with.
  struct Preference {
    double beta = 0.1;
    bool squared = false;
  };
  std::optional<Preference> preference;
  bool lora() const noexcept { return method == Method::Lora; }
};

struct RunConfig {
  Json merged;  // preset, file and overrides together, with absolute paths: what checkpoints keep

  Config model;
  fs::path tokenizer;
  fs::path init_from;  // a checkpoint whose weights the run begins with; empty: random ones

  std::optional<TuneOptions> tune;  // of fine-tuning

  std::vector<RunSource> train, valid;
  int64_t seq = 512;
  Packing packing = Packing::Stream;
  bool isolate_documents = true;

  int64_t steps = 1000;
  int64_t batch = 8;        // sequences of a step
  int64_t micro_batch = 0;  // sequences in memory at a time; 0: all
  uint64_t seed = 0;
  std::string precision = "auto";  // auto, fp32, bf16
  double dropout = 0;
  int64_t recompute_layers = 0;
  OptimizerOptions optimizer;
  Schedule schedule;
  GuardOptions guard;

  // Of several ranks (train/communicator.h): whether they come to the bits of one process, and how
  // long a silent one is waited for.
  bool deterministic = true;
  int zero = 1;  // 1: each rank keeps its share of the optimizer's moments (ZeRO-1); 0: all of them
  double rank_seconds = 60;

  int64_t save_every = 500;
  int64_t keep_last = 3;
  int64_t keep_every = 0;  // steps whose checkpoints are kept for good; 0: none
  bool save_in_background = true;

  int64_t validate_every = 250;
  int64_t validate_tokens = int64_t{1} << 17;  // of each source
  int64_t sample_every = 500;
  int64_t sample_tokens = 64;
  std::vector<std::string> sample_prompts;
};

enum class RunKind : uint8_t { Pretrain, Finetune };

// Turns the name of a model that is no path into one; for model.init_from and model.tokenizer.
using ModelNames = std::function<std::string(const std::string& name)>;

// Reads a run's file: its preset's settings, then its own, then `overrides` ("optimizer.clip=0.5",
// values as in TOML). Paths in the file are relative to it, paths in overrides to the working
// folder. Throws BadInput naming the key, with the nearest known one for a key that is not known.
RunConfig load_run_config(const fs::path& file, const std::vector<std::string>& overrides,
                          RunKind kind = RunKind::Pretrain, const ModelNames& names = nullptr);

// The tensors that a run trains, under the names that its checkpoints give them.
std::vector<TensorSpec> trained_specs(const RunConfig& config);

// The settings that --set takes as numbers and words, by their dotted names ("train.steps").
const std::vector<std::string>& run_config_keys();

}  // namespace quern
