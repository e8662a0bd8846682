// Byte strings by their beginnings, in arrays: what of many names, or tokens, a text goes on with.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

class ByteTrie {
 public:
  ByteTrie() = default;
  // Among equal strings the first counts. Empty ones are left out. Values are not negative.
  explicit ByteTrie(std::vector<std::pair<std::string_view, int32_t>> strings);

  bool empty() const noexcept { return nodes_.size() < 2; }
  // Whether a string begins with this byte.
  bool begins(unsigned char byte) const noexcept { return root_[byte] != 0; }

  // The value of a string; -1 where it is not there.
  int32_t find(std::string_view string) const {
    int32_t found = -1;
    each_prefix(string, 0, [&](size_t length, int32_t value) {
      if (length == string.size()) found = value;
    });
    return found;
  }

  // Calls take(length, value) for every string that text[at...] begins with, shortest first.
  template <class Take>
  void each_prefix(std::string_view text, size_t at, Take&& take) const {
    if (at >= text.size()) return;
    uint32_t node = root_[static_cast<unsigned char>(text[at])];
    for (size_t length = 1; node != 0; ++length) {
      if (nodes_[node].value >= 0) take(length, nodes_[node].value);
      if (at + length >= text.size()) return;
      node = child(node, static_cast<unsigned char>(text[at + length]));
    }
  }

 private:
  struct Node {
    uint32_t first_edge, edges;
    int32_t value;  // -1 where no string ends
  };
  uint32_t child(uint32_t node, unsigned char byte) const noexcept {
    const Node& from = nodes_[node];
    for (uint32_t i = from.first_edge; i < from.first_edge + from.edges; ++i) {
      if (bytes_[i] == byte) return targets_[i];
      if (bytes_[i] > byte) break;
    }
    return 0;
  }

  std::array<uint32_t, 256> root_{};
  std::vector<Node> nodes_;
  std::vector<unsigned char> bytes_;  // of the edges, ascending at each node
  std::vector<uint32_t> targets_;
};

}  // namespace quern
