#include "train/communicator.h"

#include <algorithm>
#include <chrono>

namespace quern {
namespace {

class Alone final : public Communicator {
 public:
  Alone() : Communicator(0, 1) {}
  void abort(int) override {}

 protected:
  void exchange(std::span<const std::byte>, int, std::span<std::byte>, int) override {}
};

void add(std::span<float> to, std::span<const float> values) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += values[i];
}

}  // namespace

void Communicator::all_reduce(std::span<float> values) {
  if (size_ == 1) return;
  if ((size_ & (size_ - 1)) == 0) {
    reduce_by_halving(values);
  } else {
    reduce_by_tree(values);
  }
}

// Neighbours halve what they hold: each sums one half, at distance 1, 2, 4, ...; then the halves go
// back the same way. Every element is summed by one rank, along the tree.
void Communicator::reduce_by_halving(std::span<float> values) {
  std::vector<float> theirs;
  std::vector<std::pair<size_t, size_t>> halves = {{0, values.size()}};
  for (int mask = 1; mask < size_; mask <<= 1) {
    const auto [begin, end] = halves.back();
    const size_t middle = begin + (end - begin) / 2;
    const bool low = (rank_ & mask) == 0;
    const auto keep = low ? std::pair(begin, middle) : std::pair(middle, end);
    const auto give = low ? std::pair(middle, end) : std::pair(begin, middle);
    theirs.resize(keep.second - keep.first);
    exchange(std::as_bytes(values.subspan(give.first, give.second - give.first)), rank_ ^ mask,
             std::as_writable_bytes(std::span(theirs)), rank_ ^ mask);
    add(values.subspan(keep.first, theirs.size()), theirs);
    halves.push_back(keep);
  }
  for (int mask = size_ >> 1; mask > 0; mask >>= 1) {
    const auto own = halves.back();
    halves.pop_back();
    const auto [begin, end] = halves.back();
    const auto other =
        own.first == begin ? std::pair(own.second, end) : std::pair(begin, own.first);
    exchange(std::as_bytes(values.subspan(own.first, own.second - own.first)), rank_ ^ mask,
             std::as_writable_bytes(values.subspan(other.first, other.second - other.first)),
             rank_ ^ mask);
  }
}

void Communicator::reduce_by_tree(std::span<float> values) {
  std::vector<float> theirs(values.size());
  const auto bytes = std::as_writable_bytes(values);
  int top = 1;
  while (top < size_) top <<= 1;
  for (int distance = 1; distance < size_; distance <<= 1) {
    if (rank_ % (2 * distance) == distance) exchange(bytes, rank_ - distance, {}, 0);
    if (rank_ % (2 * distance) != 0 || rank_ + distance >= size_) continue;
    exchange({}, 0, std::as_writable_bytes(std::span(theirs)), rank_ + distance);
    add(values, theirs);
  }
  for (int distance = top >> 1; distance > 0; distance >>= 1) {
    if (rank_ % (2 * distance) == distance) exchange({}, 0, bytes, rank_ - distance);
    if (rank_ % (2 * distance) == 0 && rank_ + distance < size_) {
      exchange(bytes, rank_ + distance, {}, 0);
    }
  }
}

std::vector<std::byte> Communicator::all_gather(std::span<const std::byte> mine) {
  const size_t each = mine.size();
  std::vector<std::byte> out(each * static_cast<size_t>(size_));
  const auto place = [&](int rank) {
    return std::span(out).subspan(each * static_cast<size_t>(rank), each);
  };
  std::ranges::copy(mine, place(rank_).begin());
  for (int distance = 1; distance < size_; ++distance) {
    const int to = (rank_ + distance) % size_, from = (rank_ + size_ - distance) % size_;
    exchange(mine, to, place(from), from);
  }
  return out;
}

std::vector<double> Communicator::all_gather(std::span<const double> mine) {
  const std::vector<std::byte> bytes = all_gather(std::as_bytes(mine));
  std::vector<double> out(mine.size() * static_cast<size_t>(size_));
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(out)).begin());
  return out;
}

void Communicator::share_out(std::span<float> values, std::span<const size_t> bounds) {
  const auto part = [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    return std::as_writable_bytes(values.subspan(bounds[r], bounds[r + 1] - bounds[r]));
  };
  for (int distance = 1; distance < size_; ++distance) {
    const int to = (rank_ + distance) % size_, from = (rank_ + size_ - distance) % size_;
    exchange(part(rank_), to, part(from), from);
  }
}

void Communicator::collect(std::span<float> values, std::span<const size_t> bounds) {
  for (int rank = 1; rank < size_; ++rank) {
    const auto r = static_cast<size_t>(rank);
    const auto part = std::as_writable_bytes(values.subspan(bounds[r], bounds[r + 1] - bounds[r]));
    if (rank_ == rank) exchange(part, 0, {}, 0);
    if (rank_ == 0) exchange({}, 0, part, rank);
  }
}

void Communicator::barrier() {
  const std::byte one[1] = {};
  all_gather(std::span(one));
}

double Communicator::time_exchange(int a, int b, size_t bytes) {
  double seconds = 0;
  if (rank_ == a || rank_ == b) {
    const std::vector<std::byte> out(bytes, std::byte{1});
    std::vector<std::byte> in(bytes);
    const int other = rank_ == a ? b : a;
    const auto begun = std::chrono::steady_clock::now();
    exchange(out, other, in, other);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  }
  barrier();
  return seconds;
}

std::unique_ptr<Communicator> make_alone() { return std::make_unique<Alone>(); }

}  // namespace quern
