#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "plot/chart.h"

extern char** environ;

namespace quern {
namespace {

// The name of a file that is not to stay.
class TemporaryName {
 public:
  explicit TemporaryName(fs::path path) : path_(std::move(path)) {}
  ~TemporaryName() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TemporaryName(const TemporaryName&) = delete;
  TemporaryName& operator=(const TemporaryName&) = delete;
  const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

void convert_to_png(const fs::path& svg, const fs::path& png) {
  std::string words[] = {"rsvg-convert", "--zoom=2", "-o", png.string(), svg.string()};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                       words[3].data(), words[4].data(), nullptr};
  pid_t child = 0;
  const int failure = ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments, environ);
  int status = 0;
  if (failure == 0) {
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  }
  if (failure == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  if (failure == ENOENT || (failure == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)) {
    throw Error(Kind::Unsupported, png.string() + ": PNG needs the program rsvg-convert",
                "apt-get install librsvg2-bin, or name a file that ends in .svg");
  }
  throw Error(Kind::Failed,
              png.string() + ": rsvg-convert failed" +
                  (failure != 0 ? std::string(": ") + std::strerror(failure) : std::string()),
              "name a file that ends in .svg");
}

}  // namespace

void write_picture(const fs::path& path, const std::string& svg) {
  const std::string ending = path.extension().string();
  if (ending == ".svg") return write_file(path, svg);
  if (ending != ".png") {
    throw Error(Kind::Misused, path.string() + ": pictures are made as .svg or .png",
                "name a file with one of these endings");
  }
  AtomicFile{path};  // where it cannot be created, it is this name that an error should have
  const TemporaryName drawing(path.string() + ".svg.tmp"), made(path.string() + ".tmp");
  write_file(drawing.path(), svg);
  convert_to_png(drawing.path(), made.path());
  sync_path(made.path());
  fs::rename(made.path(), path);
}

}  // namespace quern
