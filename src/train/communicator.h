// Ranks: processes that train one model together. What they do to one another's data is here, in
// terms of one exchange of bytes; who carries the bytes is the implementation's.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

class Communicator {
 public:
  virtual ~Communicator() = default;
  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  bool alone() const noexcept { return size_ == 1; }
  bool first() const noexcept { return rank_ == 0; }

  // What is sent and received for, in errors: "step 7"; and how long a silent rank is waited for.
  void set_stage(std::string stage) { stage_ = std::move(stage); }
  void set_patience(double seconds) noexcept { patience_ = seconds; }

  // Sums over ranks, of equal lengths on all: every rank gets the same bits. Of 2^k ranks they are
  // those of one binary tree over the ranks, ((0+1)+(2+3))+..., by recursive halving; others go up and
  // down such a tree.
  void all_reduce(std::span<float> values);
  // Each rank's bytes, as many on all, in the order of the ranks.
  std::vector<std::byte> all_gather(std::span<const std::byte> mine);
  // Each rank's share of `values`, [bounds[rank], bounds[rank + 1]), to all ranks, or to the first.
  void share_out(std::span<float> values, std::span<const size_t> bounds);
  void collect(std::span<float> values, std::span<const size_t> bounds);
  // The numbers of all ranks in their order.
  std::vector<double> all_gather(std::span<const double> mine);
  // Returns when all ranks have come here.
  void barrier();

  // Seconds in which ranks `a` and `b` send each other so many bytes, known to both; 0 on the others,
  // which wait for the end.
  double time_exchange(int a, int b, size_t bytes);

  // A failure of this rank alone: the others end, too.
  virtual void abort(int code) = 0;

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}
  // Sends to one rank while it receives from another; empty spans say nothing. Throws Failed, naming
  // rank, stage and seconds, where a rank is gone or silent.
  virtual void exchange(std::span<const std::byte> out, int to, std::span<std::byte> in,
                        int from) = 0;
  const std::string& stage() const noexcept { return stage_; }
  double patience() const noexcept { return patience_; }

 private:
  void reduce_by_halving(std::span<float> values);
  void reduce_by_tree(std::span<float> values);

  int rank_, size_;
  std::string stage_ = "the start";
  double patience_ = 60;
};

// One process.
std::unique_ptr<Communicator> make_alone();
// The ranks that a launcher started (core/launcher.h), by the MPI that it belongs to: a plugin beside
// the program or under lib/quern. A process that nobody launched, or whose launcher started one, is
// alone. Throws Unsupported where there are several
// and no plugin for them.
std::unique_ptr<Communicator> make_communicator();

}  // namespace quern
