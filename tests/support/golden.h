// A golden case: what a reference implementation computed, with tolerances.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "formats/safetensors.h"
#include "support/support.h"

namespace quern::test {

class Golden {
 public:
  // A folder with golden.safetensors and case.json.
  explicit Golden(const fs::path& folder)
      : folder_(folder),
        file_(folder / "golden.safetensors"),
        case_(Json::parse_file((folder / "case.json").string())) {}

  const fs::path& folder() const { return folder_; }
  bool has(const std::string& name) const { return file_.find(name).has_value(); }
  std::vector<float> floats(const std::string& name) const {
    return to_floats(file_.at(name), name);
  }
  std::vector<int32_t> ids(const std::string& name) const {
    const auto wide = to_integers(file_.at(name), name);
    return {wide.begin(), wide.end()};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const NamedTensor& tensor : file_.tensors()) out.push_back(tensor.name);
    return out;
  }
  Shape shape(const std::string& name) const { return file_.at(name).shape; }
  // Within the tensor's own tolerance.
  void check(const std::string& name, std::span<const float> got) const {
    const Json tensor = case_.at("tensors").at(name);
    const Tolerance tolerance = {tensor.number_or("atol", 0), tensor.number_or("rtol", 0)};
    check_close(got, floats(name), tolerance, name);
  }

 private:
  fs::path folder_;
  SafetensorsFile file_;
  Json case_;
};

}  // namespace quern::test
