#include "train/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "formats/safetensors.h"
#include "model/stored_tensors.h"
#include "train/adapter_files.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kPrefix = "step-";
constexpr int64_t kVersion = 1;

ordered_json state_json(const RunState& state, const RunConfig& config) {
  return {{"version", kVersion},
          {"step", state.step},
          {"tokens", state.tokens},
          {"optimizer_steps", state.optimizer_steps},
          {"data_position", state.position},
          {"guard",
           {{"steps", state.guard.steps},
            {"mean", state.guard.mean},
            {"variance", state.guard.variance},
            {"skipped_in_a_row", state.guard.skipped_in_a_row}}},
          {"config", config.merged.raw()}};
}

RunState parse_state(const Json& json) {
  if (json.at("version").integer() != kVersion) json.at("version").fail("is not known");
  RunState out;
  out.step = json.at("step").integer(0);
  out.tokens = json.at("tokens").integer(0);
  out.optimizer_steps = json.at("optimizer_steps").integer(0, out.step);
  for (const Json& item : json.at("data_position").items()) out.position.push_back(item.integer(0));
  const Json guard = json.at("guard");
  out.guard = {guard.at("steps").integer(0), guard.at("mean").number(),
               guard.at("variance").number(), guard.at("skipped_in_a_row").integer(0)};
  return out;
}

void write_manifest(const fs::path& folder, int64_t step) {
  std::set<fs::path> files;  // sorted: the same bytes for the same checkpoint
  for (const auto& entry : fs::directory_iterator(folder)) files.insert(entry.path());
  ordered_json list = ordered_json::array();
  for (const fs::path& file : files) {
    list.push_back({{"file", file.filename().string()},
                    {"bytes", fs::file_size(file)},
                    {"sha256", sha256_file(file)}});
  }
  write_file(folder / "manifest.json",
             dump(ordered_json{{"version", kVersion}, {"step", step}, {"files", list}}, 2) + "\n");
}

// "data.train[0].weight": the first place where two trees differ, or nothing.
std::string first_difference(const nlohmann::json& a, const nlohmann::json& b) {
  const auto patch = nlohmann::json::diff(a, b);
  return patch.empty() ? "" : patch[0].at("path").get<std::string>();
}

void check_same_run(const Json& state, const RunConfig& config) {
  for (const char* part : {"model", "data", "tune", "lora"}) {
    const auto kept = state.at("config").find(part);
    const auto now = config.merged.find(part);
    const std::string where = first_difference(kept ? kept->raw() : nlohmann::json(),
                                               now ? now->raw() : nlohmann::json());
    if (where.empty()) continue;
    state.fail(fmt::format("was written by a run whose {}{} is another", part, where),
               "resume with the settings that the run was begun with, or begin a new --out");
  }
  const std::string other = first_difference(state.at("config").raw(), config.merged.raw());
  if (!other.empty()) log::info(fmt::format("resumed with another {} than before", other));
}

void load_moments(const fs::path& folder, Optimizer& optimizer) {
  const SafetensorsFile file(folder / "optimizer.safetensors");
  const auto load = [&](Parameters& moments, const char* prefix) {
    for (size_t i = 0; i < moments.specs().size(); ++i) {
      const std::string name = prefix + moments.specs()[i].name;
      const ConstTensorView view = file.at(name);
      if (view.dtype != DType::F32 || !(view.shape == moments.specs()[i].shape)) {
        throw_bad_input(fmt::format("{}: {} is {} {}, the model implies F32 {}",
                                    file.path().string(), name, quern::name(view.dtype),
                                    to_string(view.shape), to_string(moments.specs()[i].shape)));
      }
      const std::vector<float> values = to_floats(view, name);
      std::copy(values.begin(), values.end(), moments.tensor(i).begin());
    }
  };
  load(optimizer.first(), "first.");
  load(optimizer.second(), "second.");
}

}  // namespace

RunLock::RunLock(const fs::path& folder) {
  const fs::path path = folder / "lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_errno(path.string(), "cannot create");
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    char owner[32] = {};
    const ssize_t count = ::read(descriptor_, owner, sizeof owner - 1);
    ::close(descriptor_);
    const std::string id = count > 0 ? printable(std::string_view(owner, size_t(count - 1))) : "?";
    throw Error(Kind::Failed,
                fmt::format("{}: process {} is training into this folder", folder.string(), id),
                "wait for it, or name another --out");
  }
  const std::string id = fmt::format("{}\n", ::getpid());
  if (::ftruncate(descriptor_, 0) != 0 || ::write(descriptor_, id.data(), id.size()) < 0) {
    throw_errno(path.string(), "cannot write");
  }
}

RunLock::~RunLock() { ::close(descriptor_); }

// Everything that a write needs while training changes the originals.
struct CheckpointSaver::Job {
  RunState state;
  Parameters* parameters;
  Parameters* first;
  Parameters* second;
  std::vector<Parameters> copies;  // what the pointers point to, in the background
};

CheckpointSaver::CheckpointSaver(fs::path run, const RunConfig& config, Backend& backend,
                                 std::function<void(const fs::path&)> files)
    : run_(std::move(run)), config_(config), backend_(backend), files_(std::move(files)) {
  if (config.tune && config.tune->lora()) base_hash_ = hash_weights(config.init_from);
}

CheckpointSaver::~CheckpointSaver() {
  if (writer_.joinable()) writer_.join();
}

void CheckpointSaver::wait() {
  if (writer_.joinable()) writer_.join();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void CheckpointSaver::save(const RunState& state, Parameters& parameters, Optimizer& optimizer) {
  wait();
  if (!job_) job_ = std::make_unique<Job>();
  job_->state = state;
  Parameters* const originals[] = {&parameters, &optimizer.first(), &optimizer.second()};
  if (!config_.save_in_background) {
    job_->parameters = originals[0];
    job_->first = originals[1];
    job_->second = originals[2];
    write(*job_);
    return;
  }
  while (job_->copies.size() < 3) {
    job_->copies.emplace_back(backend_, config_.model, parameters.specs());
  }
  for (size_t i = 0; i < 3; ++i) {
    const auto from = std::as_const(*originals[i]).all();
    std::copy(from.begin(), from.end(), job_->copies[i].all().begin());
  }
  job_->parameters = &job_->copies[0];
  job_->first = &job_->copies[1];
  job_->second = &job_->copies[2];
  writer_ = std::thread([this] {
    try {
      write(*job_);
    } catch (...) {
      failure_ = std::current_exception();
    }
  });
}

void CheckpointSaver::write(const Job& job) const {
  const fs::path target = checkpoint_folder(run_, job.state.step);
  // A resumed run comes past steps again whose checkpoint was there but not whole.
  std::error_code ignored;
  fs::remove_all(target, ignored);
  AtomicFolder folder(target);
  const fs::path& at = folder.temporary();

  Config config = config_.model;
  config.dtype = DType::F32;
  std::vector<PlannedTensor> weights, moments;
  for (const TensorSpec& spec : job.parameters->specs()) {
    weights.push_back({spec.name, DType::F32, file_shape(spec, config)});
  }
  for (const char* prefix : {"first.", "second."}) {
    for (const TensorSpec& spec : job.parameters->specs()) {
      moments.push_back({prefix + spec.name, DType::F32, spec.shape});
    }
  }
  const auto write_all = [](auto& writer, const Parameters& values) {
    for (size_t i = 0; i < values.specs().size(); ++i) writer.write(bytes_of(values.tensor(i)));
  };
  const bool lora = config_.tune && config_.tune->lora();
  if (lora) {
    SafetensorsWriter adapter(at / kAdapterWeights, weights, {{"format", "pt"}});
    write_all(adapter, *job.parameters);
    adapter.finish();
    write_adapter_files(at, config_, base_hash_);
  } else {
    CheckpointWriter model(at, weights);
    for (size_t i = 0; i < job.parameters->specs().size(); ++i) {
      const std::vector<float> values = floats_for_file(std::as_const(*job.parameters).tensor(i),
                                                        job.parameters->specs()[i], config);
      model.write(bytes_of(std::span<const float>(values)));
    }
    model.finish();
    write_file(at / "config.json", dump(to_json(config), 2) + "\n");
  }
  SafetensorsWriter optimizer(at / "optimizer.safetensors", moments);
  write_all(optimizer, *job.first);
  write_all(optimizer, *job.second);
  optimizer.finish();
  write_file(at / "training.json", dump(state_json(job.state, config_), 2) + "\n");
  files_(at);
  write_manifest(at, job.state.step);
  folder.commit();

  const fs::path link = run_ / "latest", fresh = run_ / "latest.tmp";
  fs::remove(fresh, ignored);
  fs::create_symlink(target.filename(), fresh);
  fs::rename(fresh, link);
  sync_path(run_);
  prune();
}

// Keeps the newest `keep_last` and every `keep_every`-th step's; removes what a killed process left
// half written.
void CheckpointSaver::prune() const {
  const std::vector<int64_t> steps = checkpoint_steps(run_);
  for (size_t i = 0; i + static_cast<size_t>(config_.keep_last) < steps.size(); ++i) {
    if (config_.keep_every > 0 && steps[i] % config_.keep_every == 0) continue;
    fs::remove_all(checkpoint_folder(run_, steps[i]));
  }
  for (const auto& entry : fs::directory_iterator(run_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.find(".tmp-") != name.npos) fs::remove_all(entry.path());
  }
}

fs::path checkpoint_folder(const fs::path& run, int64_t step) {
  return run / fmt::format("{}{:08}", kPrefix, step);
}

std::vector<int64_t> checkpoint_steps(const fs::path& run) {
  std::vector<int64_t> steps;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(run, absent)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* const end = name.data() + name.size();
    const auto [stop, failure] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (failure == std::errc{} && stop == end) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void check_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "manifest.json";
  if (!fs::exists(path)) {
    throw_bad_input(checkpoint.string() + ": has no manifest.json, so it is not whole");
  }
  const Json manifest = Json::parse_file(path.string());
  for (const Json& item : manifest.at("files").items()) {
    const fs::path file = join_inside(checkpoint, item.at("file").string(), path.string());
    if (!fs::is_regular_file(file)) throw_bad_input(file.string() + ": is missing");
    if (static_cast<int64_t>(fs::file_size(file)) != item.at("bytes").integer(0)) {
      throw_bad_input(fmt::format("{}: has {} bytes, manifest.json says {}", file.string(),
                                  fs::file_size(file), item.at("bytes").integer()));
    }
    if (sha256_file(file) != item.at("sha256").string()) {
      throw_bad_input(file.string() + ": its SHA-256 differs from manifest.json");
    }
  }
}

RunState resume(const fs::path& run, const RunConfig& config, Parameters& parameters,
                Optimizer& optimizer) {
  std::vector<int64_t> steps = checkpoint_steps(run);
  for (; !steps.empty(); steps.pop_back()) {
    const fs::path folder = checkpoint_folder(run, steps.back());
    try {
      check_manifest(folder);
    } catch (const Error& error) {
      log::warning(std::string("passed over a checkpoint: ") + error.what());
      continue;
    }
    const Json json = Json::parse_file((folder / "training.json").string());
    RunState state = parse_state(json);
    check_same_run(json, config);
    if (config.tune && config.tune->lora()) {
      check_base(folder, hash_weights(config.init_from));
      parameters.load(TensorStore::open(folder / kAdapterWeights));
    } else {
      parameters.load(TensorStore::open(folder));
    }
    load_moments(folder, optimizer);
    optimizer.set_steps(state.optimizer_steps);
    return state;
  }
  throw_bad_input(run.string() + ": holds no whole checkpoint to resume from",
                  "leave --resume out to begin anew");
}

}  // namespace quern
