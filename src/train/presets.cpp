#include "train/presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace quern {
namespace {

struct Preset {
  std::string_view name;
  std::string_view toml;
};

constexpr Preset kPresets[] = {
    // The memo's figures: 2,048 sequences of 2,048 tokens a step, 2.2 trillion tokens.
    {"qwen-7b", R"(
[model]
preset = "qwen-7b"
[data]
seq = 2048
[train]
steps = 525000
batch = 2048
micro_batch = 1
precision = "bf16"
recompute_layers = 32
[optimizer]
learning_rate = 3e-4
warmup = 2000
[checkpoint]
every = 1000
keep_every = 20000
[validation]
every = 1000
)"},
    // The shape of the model that ships with Quern.
    {"mini", R"(
[model]
preset = "mini"
[data]
seq = 512
[train]
steps = 8000
batch = 8
[optimizer]
learning_rate = 1.5e-3
warmup = 200
[checkpoint]
every = 500
[validation]
every = 250
[samples]
every = 500
)"},
    // Chat tuning as the memo of the release has it.
    {"memo", R"(
[tune]
method = "full"
[data]
seq = 2048
[train]
steps = 4000
batch = 128
dropout = 0.1
[optimizer]
learning_rate = 1e-5
warmup = 1430
schedule = "constant"
beta_1 = 0.9
beta_2 = 0.95
epsilon = 1e-6
weight_decay = 0.1
clip = 1.0
[checkpoint]
every = 500
)"},
    // The figures of the release's finetune_lora scripts, but for its five epochs: set train.steps.
    {"release-lora", R"(
[tune]
method = "lora"
[lora]
rank = 64
alpha = 16
dropout = 0.05
[data]
seq = 512
[train]
steps = 1000
batch = 16
[optimizer]
learning_rate = 3e-4
warmup = 10
schedule = "cosine"
beta_1 = 0.9
beta_2 = 0.95
epsilon = 1e-8
weight_decay = 0.1
decay = "hf"
clip = 1.0
[checkpoint]
every = 1000
)"},
    // A toy for trying things out.
    {"tiny", R"(
[model]
preset = "tiny"
[data]
seq = 256
[train]
steps = 400
batch = 8
[optimizer]
learning_rate = 3e-3
warmup = 40
[checkpoint]
every = 100
[validation]
every = 50
tokens = 16384
[samples]
every = 200
)"},
};

}  // namespace

std::string_view run_preset(std::string_view name, std::string_view source) {
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset.toml;
  }
  throw_bad_input(fmt::format("{}: there is no preset '{}'", source, printable(name, 40)),
                  fmt::format("known are {}", fmt::join(run_preset_names(), ", ")));
}

std::vector<std::string_view> run_preset_names() {
  std::vector<std::string_view> names;
  for (const Preset& preset : kPresets) names.push_back(preset.name);
  return names;
}

}  // namespace quern
