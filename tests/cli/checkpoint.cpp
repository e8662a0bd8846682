#include "cli/checkpoint.h"

#include "cli/program.h"
#include "formats/convert_floats.h"
#include "formats/safetensors.h"

namespace quern::test {

std::string byte_vocabulary() {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '=', ' '};
    text += std::to_string(byte) + "\n";
  }
  return text;
}

fs::path tiny_checkpoint(const TempFolder& folder) {
  const fs::path vocabulary = folder.write("bytes.tiktoken", byte_vocabulary());
  const fs::path model = folder.path() / "model";
  const Outcome made = quern({"init", model.string(), "--preset", "tiny", "--tokenizer",
                              vocabulary.string(), "--seed", "3"});
  EXPECT_EQ(made.code, 0) << made.err;
  return model;
}

void fill_tensor(const fs::path& file, const std::string& name, float value) {
  const SafetensorsFile old(file);
  std::vector<PlannedTensor> plan;
  for (const NamedTensor& tensor : old.tensors()) {
    plan.push_back({tensor.name, tensor.view.dtype, tensor.view.shape});
  }
  SafetensorsWriter writer(file, plan);  // takes the old file's place when it is finished
  for (const NamedTensor& tensor : old.tensors()) {
    if (tensor.name == name) {
      const std::vector<float> values(static_cast<size_t>(tensor.view.shape.count()), value);
      std::vector<std::byte> bytes;
      encode_floats(values, tensor.view.dtype, bytes);
      writer.write(bytes);
    } else {
      writer.write(std::span(tensor.view.data, tensor.view.size_bytes()));
    }
  }
  writer.finish();
}

}  // namespace quern::test
