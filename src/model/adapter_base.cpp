#include "model/adapter_base.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/gguf.h"

namespace quern {

std::vector<fs::path> weight_files(const fs::path& model) {
  std::vector<fs::path> files;
  if (is_gguf(model)) {
    for (const fs::path& file : GgufFile(model).files()) files.push_back(file);
  } else {
    for (const auto& entry : fs::directory_iterator(model)) {
      // The model's own: an optimizer's state or an adapter may lie beside them.
      const std::string name = entry.path().filename().string();
      const bool own = name.starts_with("model") && name.ends_with(".safetensors");
      const bool torch = name.starts_with("pytorch_model") && name.ends_with(".bin");
      if (entry.is_regular_file() && (own || torch)) {
        files.push_back(entry.path());
      }
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string hash_weights(const fs::path& model) {
  const std::vector<fs::path> files = weight_files(model);
  if (files.size() == 1) return sha256_file(files[0]);
  std::string all;
  for (const fs::path& file : files) {
    all += fmt::format("{} {}\n", file.filename().string(), sha256_file(file));
  }
  return sha256(all);
}

void check_base(const fs::path& folder, const std::string& hash) {
  const fs::path path = folder / "base.json";
  const std::string own = Json::parse_file(path.string()).at("weights_sha256").string();
  if (own == hash) return;
  throw_bad_input(
      fmt::format("{}: the adapter was tuned over weights of hash {}, the model's is {}",
                  path.string(), printable(own.substr(0, 12)), hash.substr(0, 12)),
      "name the model that it was tuned over");
}

void warn_of_other_base(const fs::path& adapter, const fs::path& model, bool strict) {
  constexpr uint64_t kHashed = uint64_t{512} << 20;  // a fraction of a second
  const fs::path path = adapter / "base.json";
  if (!fs::exists(path)) return;
  const Json base = Json::parse_file(path.string());
  uint64_t bytes = 0;
  for (const fs::path& file : weight_files(model)) bytes += fs::file_size(file);
  std::string other;
  if (base.has("weights_bytes") &&
      static_cast<uint64_t>(base.at("weights_bytes").integer()) != bytes) {
    other = fmt::format("of {}, the model's have {}",
                        human_bytes(static_cast<uint64_t>(base.at("weights_bytes").integer())),
                        human_bytes(bytes));
  } else if (strict || bytes <= kHashed) {
    const std::string own = base.at("weights_sha256").string(), hash = hash_weights(model);
    if (own == hash) return;
    other = fmt::format("of hash {}, the model's is {}", printable(own.substr(0, 12)),
                        hash.substr(0, 12));
  } else {
    return;
  }
  const std::string problem =
      fmt::format("{}: the adapter was tuned over other weights than {}: over {} {}", path.string(),
                  model.string(), printable(base.string_or("path", "some"), 200), other);
  if (strict) throw_bad_input(problem, "name the model that it was tuned over");
  log::warning(problem + "; its answers may be worse than they were");
}

}  // namespace quern
