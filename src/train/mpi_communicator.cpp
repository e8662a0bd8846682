// Ranks over MPI: the plugin of the library that the launcher belongs to.
#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>

#include "core/error.h"
#include "core/file.h"
#include "core/launcher.h"
#include "mpi_plugin.h"
#include "train/communicator.h"

namespace quern {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "?";
  return name.data();
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(const QuernMpi& mpi, int rank, int size) : Communicator(rank, size), mpi_(mpi) {}
  ~MpiCommunicator() override {
    if (!broken_) mpi_.finish();
  }
  void abort(int code) override { mpi_.abort(code); }

 protected:
  void exchange(std::span<const std::byte> out, int to, std::span<std::byte> in,
                int from) override {
    const auto begun = std::chrono::steady_clock::now();
    const int code =
        mpi_.exchange(out.data(), out.size(), to, in.data(), in.size(), from, patience());
    if (code == 0) return;
    broken_ = true;
    const double waited =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    const int silent = in.empty() ? to : from;
    throw Error(
        Kind::Failed,
        fmt::format("rank {} on {}: rank {} {} at {}, after {:.0f} s", rank(), host_name(), silent,
                    code == 1 ? "says nothing" : "cannot be reached", stage(), waited),
        "all ranks end here; --resume goes on from the last checkpoint");
  }

 private:
  const QuernMpi& mpi_;
  bool broken_ = false;
};

const QuernMpi* load_plugin(const std::string& name, std::string& problem) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& folder : {program, program / "..", program / "../lib/quern"}) {
    const fs::path file = folder / ("libquern_" + name + ".so");
    if (!fs::exists(file, ignored)) continue;
    // Global: MPI libraries load parts of their own that look for its symbols.
    void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
      problem = ::dlerror();
      continue;
    }
    auto* entry = reinterpret_cast<decltype(&quern_mpi)>(::dlsym(library, "quern_mpi"));
    if (entry != nullptr && entry()->version == QUERN_MPI_VERSION) return entry();
    problem = file.string() + ": is of another version of the program";
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Communicator> make_communicator() {
  const Launcher started = launcher();
  // A Slurm array's tasks are runs of their own.
  if (started.size == 1 || std::string_view(started.name) == "a Slurm array") return make_alone();
  const bool open = std::string_view(started.name) == "Open MPI";
  std::string problem;
  for (const std::string& name :
       open ? std::vector<std::string>{"openmpi"} : std::vector<std::string>{"mpich", "openmpi"}) {
    const QuernMpi* mpi = load_plugin(name, problem);
    if (mpi == nullptr) continue;
    int rank = 0, size = 1;
    if (mpi->start(&rank, &size) != 0) {
      throw Error(Kind::Failed, fmt::format("{} cannot start", name));
    }
    // The other MPI's library does not know this launcher: each process would be alone.
    if (size == started.size) return std::make_unique<MpiCommunicator>(*mpi, rank, size);
    throw Error(Kind::Unsupported,
                fmt::format("{} has started {} processes, {} sees {}", started.name, started.size,
                            name, size),
                "the launcher must belong to the MPI that the program was built with");
  }
  throw Error(Kind::Unsupported,
              fmt::format("{} has started {} processes, and this build has no MPI to join them{}{}",
                          started.name, started.size, problem.empty() ? "" : ": ", problem),
              "build it where libopenmpi-dev or libmpich-dev is installed, or start one process");
}

}  // namespace quern
