// quern gradients: the loss and every gradient of a batch into a file, for comparing with another
// implementation.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "cli/commands/arguments.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "compute/cpu/cpu_training_backend.h"
#include "core/error.h"
#include "formats/adapter_config.h"
#include "formats/safetensors.h"
#include "model/backward.h"
#include "model/stored_tensors.h"
#include "train/optimizer.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, adapter, batch, out;
  std::string decay = "matrices";
  int64_t steps = 0;
  double learning_rate = 1e-3;
  bool force = false;
};

// A tensor [batch, seq] of integers that fit an int32.
std::vector<int32_t> read_integers(const SafetensorsFile& file, const std::string& name,
                                   const Shape& shape) {
  const ConstTensorView view = file.at(name);
  if (!(view.shape == shape)) {
    throw_bad_input(fmt::format("{}: {} is {}, expected {}", file.path().string(), name,
                                to_string(view.shape), to_string(shape)));
  }
  std::vector<int32_t> out;
  for (const int64_t value : to_integers(view, file.path().string() + ": " + name)) {
    if (value < INT32_MIN || value > INT32_MAX) {
      throw_bad_input(fmt::format("{}: {} has the value {}", file.path().string(), name, value));
    }
    out.push_back(static_cast<int32_t>(value));
  }
  return out;
}

// What an adapter's file holds, as the model's tensors: factors of updates, and modules saved in
// full.
std::vector<TensorSpec> specs_of_adapter(const Config& config, const std::string& folder,
                                         const TensorStore& adapter) {
  const AdapterConfig settings = read_adapter_config(folder);
  const std::string prefix = "base_model.model.";
  std::vector<TensorSpec> specs = adapter_specs(config, [&](const TensorSpec& spec) {
    const auto a = adapter.find(prefix + spec.module + ".lora_A.weight");
    if (!a || a->shape.rank() != 2) return AdapterShape{};
    return AdapterShape{a->shape[0], static_cast<float>(settings.scale(spec.module))};
  });
  std::vector<TensorSpec> whole = {tensor_specs(config)[0]};
  whole.push_back({"lm_head.weight",
                   "lm_head",
                   {config.output_vocab, config.hidden},
                   Part::LmHead,
                   Role::Head,
                   -1});
  for (TensorSpec spec : whole) {
    spec.module = prefix + spec.module;
    spec.name = spec.module + ".weight";
    if (adapter.find(spec.name)) specs.push_back(spec);
  }
  for (const std::string& name : adapter.names()) {
    if (std::ranges::any_of(specs, [&](const TensorSpec& s) { return s.name == name; })) continue;
    throw_bad_input(
        fmt::format("{}: {} belongs to no module of this model", folder, printable(name, 120)),
        "the adapter was made for another model");
  }
  return specs;
}

void gradients(const Arguments& args) {
  claim_output(args.out, args.force);
  const Config config = load_config(args.model);
  const SafetensorsFile file(args.batch);
  const Shape shape = file.at("input_ids").shape;
  if (shape.rank() != 2 || shape.count() == 0) {
    throw_bad_input(
        fmt::format("{}: input_ids is {}, expected [batch, seq]", args.batch, to_string(shape)));
  }
  const std::vector<int32_t> ids = read_integers(file, "input_ids", shape);
  const std::vector<int32_t> labels = read_integers(file, "labels", shape);
  check_ids(ids, config, args.batch + ": input_ids");
  for (const int32_t label : labels) {
    if (label == kIgnoredLabel || (label >= 0 && label < config.output_vocab)) continue;
    throw_bad_input(fmt::format("{}: labels has {}, expected {} or an id up to {}", args.batch,
                                label, kIgnoredLabel, config.output_vocab - 1));
  }
  std::vector<int32_t> starts;
  if (file.find("attention_mask")) {
    const std::vector<int32_t> mask = read_integers(file, "attention_mask", shape);
    starts = starts_of_mask(shape[0], shape[1], mask, args.batch + ": attention_mask");
  }
  const TrainingBatch batch = {shape[0], shape[1], ids, labels, starts};
  if (batch.count_labels() == 0) {
    throw_bad_input(args.batch + ": no label counts, so there is no loss");
  }

  ThreadPool pool(globals().threads);
  CpuTrainingBackend backend(pool);
  // With an adapter the model is frozen, in whatever format, and the adapter's tensors are trained.
  std::optional<LoadedWeights> frozen;
  std::optional<TensorStore> adapter;
  std::vector<TensorSpec> specs = tensor_specs(config);
  if (!args.adapter.empty()) {
    frozen = LoadedWeights::load(args.model, config, {.pool = &pool});
    adapter = TensorStore::open(fs::path(args.adapter) / "adapter_model.safetensors");
    specs = specs_of_adapter(config, args.adapter, *adapter);
  }
  Parameters parameters(backend, config, specs);
  if (adapter) {
    parameters.load(*adapter);
  } else {
    parameters.load(TensorStore::open(args.model));
  }
  const Weights weights =
      frozen ? parameters.over(frozen->weights()) : Weights(parameters.weights());
  TrainingPass pass(backend, config,
                    {.batch = shape[0],
                     .seq = shape[1],
                     .own_gradients = true,
                     .trained = specs,
                     .rounded_activations = backend.rounds_products()});
  const GradientSink sink = pass.gradients();
  Parameters& d_parameters = sink.into;
  const auto scale = static_cast<float>(1.0 / static_cast<double>(batch.count_labels()));
  const auto run = [&] {
    const LossSum sum = pass.forward_backward(weights, sink, batch, scale);
    return static_cast<float>(sum.loss / static_cast<double>(sum.count));
  };

  std::vector<PlannedTensor> plan = {{"loss", DType::F32, {}}};
  for (const TensorSpec& spec : parameters.specs()) {
    plan.push_back({spec.name, DType::F32, file_shape(spec, config)});
  }
  if (args.steps > 0) {
    plan.push_back({"losses", DType::F32, {args.steps}});
    for (const TensorSpec& spec : parameters.specs()) {
      plan.push_back({"after." + spec.name, DType::F32, file_shape(spec, config)});
    }
  }
  SafetensorsWriter writer(args.out, plan);
  const auto write_all = [&](const Parameters& values) {
    for (size_t i = 0; i < values.specs().size(); ++i) {
      const std::vector<float> own = floats_for_file(values.tensor(i), values.specs()[i], config);
      writer.write(bytes_of(std::span<const float>(own)));
    }
  };
  std::vector<float> losses = {run()};
  writer.write(bytes_of(std::span<const float>(losses)));
  write_all(d_parameters);
  if (args.steps > 0) {
    Optimizer optimizer(backend, config, {.decay = parse_decay(args.decay)}, specs);
    for (int64_t step = 0; step < args.steps; ++step) {
      if (step > 0) losses.push_back(run());
      optimizer.step(parameters, d_parameters, args.learning_rate,
                     optimizer.measure(d_parameters).scale);
    }
    writer.write(bytes_of(std::span<const float>(losses)));
    write_all(parameters);
  }
  writer.finish();
  print(fmt::format("{}: loss {:.6g} and {} gradients\n", args.out, losses[0],
                    parameters.specs().size()));
}

}  // namespace

void add_gradients(CLI::App& root) {
  Command command(
      root, "gradients", "Write the loss and every gradient of a batch to a safetensors file",
      {{"gradients MODEL --batch batch.safetensors --out gradients.safetensors",
        "`loss`, and every gradient under its tensor's name in the checkpoint"},
       {"gradients MODEL --batch batch.safetensors --out after.safetensors --steps 5 --lr 1e-3",
        "also `losses`, and the parameters after five AdamW steps on the batch as "
        "`after.<name>`"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder (Hugging Face layout)")
      .folder()
      .required()
      .replaced(resolve_model);
  command
      .option("--adapter", args->adapter,
              "LoRA folder in PEFT's layout: its gradients, over the frozen model")
      .folder();
  command
      .option("--batch", args->batch,
              "safetensors file with input_ids and labels [batch, seq], attention_mask optional")
      .file()
      .required();
  command.option("--out", args->out, "safetensors file to write").file().required();
  command.flag("--force", args->force, "Replace the file if it exists");
  command.option("--steps", args->steps, "AdamW steps; 0 = gradients only")
      .range(int64_t{0}, int64_t{1} << 20);
  command.option("--lr", args->learning_rate, "Learning rate of the steps").range(0.0, 10.0);
  command
      .option("--decay", args->decay,
              "Tensors under weight decay: matrices, hf (as transformers' Trainer), all")
      .one_of({"matrices", "hf", "all"});
  command.refuse({"--lr", "--decay"}, "goes with --steps", [args] { return args->steps == 0; });
  command.on_run([args] { gradients(*args); });
}

}  // namespace quern::cli
