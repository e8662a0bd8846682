// LoRA adapters merged into a checkpoint: each matrix becomes W + scale · B · A (Hu et al.
// 2021), under the names of the checkpoint's own files, whatever the family.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "formats/adapter_config.h"
#include "formats/safetensors.h"

namespace quern {

class AdapterMerge {
 public:
  // `scale` multiplies every update. `base` has to outlive this. Throws BadInput naming file and
  // tensor for an adapter of another base: a module that the base lacks, another shape, a tensor
  // that belongs to no module, values that are not finite.
  // `make` gives the base's tensors whose views have no data, of a quantized one.
  using MakeFloats = std::function<std::vector<float>(const std::string& name)>;
  AdapterMerge(const TensorStore& base, const std::vector<fs::path>& adapters, double scale,
               MakeFloats make = {});

  // Names of the result's tensors, sorted: the base's, and a head that was saved apart from the
  // embedding to which the base ties it.
  std::vector<std::string> names() const;
  Shape shape(const std::string& name) const { return view(name).shape; }
  DType dtype(const std::string& name) const { return view(name).dtype; }

  // Whether the result is the base's tensor as it is.
  bool changes(const std::string& name) const;
  ConstTensorView view(const std::string& name) const;  // before updates
  std::vector<float> values(const std::string& name, ThreadPool& pool) const;

  // The base's head is the embedding's matrix, the result's is one of its own.
  bool unties() const noexcept { return unties_; }
  size_t updates() const noexcept { return updates_; }  // matrices with a low-rank update, in sum

 private:
  struct Update {
    ConstTensorView a, b;  // [rank, in], [out, rank]
    float scale;
    std::string where;
  };
  void read(const fs::path& folder, const TensorStore& tensors, double scale);
  void save_in_full(const std::string& name, const fs::path& folder, const ConstTensorView& full);

  const TensorStore& base_;
  MakeFloats make_;
  std::vector<TensorStore> adapters_;
  std::map<std::string, std::vector<Update>, std::less<>> low_rank_;
  std::map<std::string, ConstTensorView, std::less<>> full_;  // go before the base's
  bool unties_ = false;
  std::string embedding_;  // that the base's head is tied to, where the result's is not
  size_t updates_ = 0;
};

}  // namespace quern
