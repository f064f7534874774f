// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "shared/base/paths.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/segment/segment.h"

namespace stoker {
namespace {

constexpr int kMostWorkers = 1024;

// Keeps the first error of a textproto.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) text = absl::StrCat(line + 1, ":", column + 1, ": ", message);
  }
  std::string text;
};

absl::Status Invalid(absl::string_view field, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", reason));
}

template <typename T>
absl::StatusOr<T> InRange(absl::string_view field, T value, T unset, T low, T high) {
  if (value == T{}) return unset;
  if (value >= low && value <= high) return value;
  return Invalid(field, absl::StrCat(value, " is not in [", low, ", ", high, "]"));
}

absl::StatusOr<int> ParseWorkers(const std::string& text) {
  if (text.empty() || text == "auto") return UsableProcessors();
  int count = 0;
  if (!absl::SimpleAtoi(text, &count) || count < 0 || count > kMostWorkers) {
    return Invalid("workers", absl::StrCat("\"", text, "\" is neither auto nor a number in [0, ", kMostWorkers, "]"));
  }
  return count;
}

absl::StatusOr<log::Level> ParseLogLevel(const std::string& text) {
  if (text.empty() || text == "info") return log::Level::kInfo;
  if (text == "debug") return log::Level::kDebug;
  if (text == "warning") return log::Level::kWarning;
  if (text == "error") return log::Level::kError;
  return Invalid("log_level", absl::StrCat("\"", text, "\" is not one of debug, info, warning, error"));
}

absl::Status CheckSize(absl::string_view field, const std::string& text) {
  if (text.empty() || text == "auto") return absl::OkStatus();
  return Annotate(ParseSize(text).status(), field);
}

absl::StatusOr<std::string> Canonical(absl::string_view field, const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) return Annotate(ErrnoStatus(errno, "resolve", path), field);
  return std::string(resolved);
}

std::string WorkerBesideUs() {
  char self[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", self, sizeof(self));
  if (size <= 0) return "stoker-worker";
  const absl::string_view path(self, static_cast<size_t>(size));
  return absl::StrCat(path.substr(0, path.rfind('/')), "/stoker-worker");
}

// The least cpu.max of this cgroup (v2) and those above it, in processors; infinity when there is none.
double CgroupProcessors() {
  const absl::StatusOr<std::string> self = ReadFile("/proc/self/cgroup", 1 << 16);
  if (!self.ok()) return HUGE_VAL;
  double least = HUGE_VAL;
  for (absl::string_view line : absl::StrSplit(*self, '\n')) {
    if (!absl::StartsWith(line, "0::/")) continue;
    for (std::string path = absl::StrCat("/sys/fs/cgroup", line.substr(3)); path.size() > 14;
         path.resize(path.rfind('/'))) {
      const absl::StatusOr<std::string> text = ReadFile(path + "/cpu.max", 1 << 16);
      if (!text.ok()) continue;
      const std::vector<absl::string_view> words = absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
      double quota = 0, period = 0;
      if (words.size() == 2 && absl::SimpleAtod(words[0], &quota) && absl::SimpleAtod(words[1], &period)) {
        least = std::min(least, quota / period);
      }
    }
  }
  return least;
}

}  // namespace

absl::StatusOr<v1::Config> ReadConfig(const std::string& path) {
  constexpr uint64_t kLargestConfig = 1 << 20;
  STOKER_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kLargestConfig));
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  v1::Config config;
  if (!parser.ParseFromString(text, &config)) {
    return absl::InvalidArgumentError(absl::StrCat("config: ", path, ":", error.text));
  }
  return config;
}

v1::Config MergeConfig(const v1::Config& file, const v1::Config& flags) {
  v1::Config config = file;
  if (flags.root_size() > 0) config.clear_root();
  config.MergeFrom(flags);
  return config;
}

absl::StatusOr<DaemonOptions> ResolveConfig(const v1::Config& config) {
  DaemonOptions options;
  options.socket = config.socket().empty() ? DefaultSocketPath() : config.socket();
  constexpr size_t kLongestSocket = 107;  // sockaddr_un
  if (options.socket.size() > kLongestSocket || options.socket[0] != '/') {
    return Invalid("socket", absl::StrCat("\"", options.socket, "\" is not an absolute path of at most 107 bytes"));
  }
  options.socket_group = config.socket_group();
  options.listen = config.listen();
  if (!options.listen.empty() && !absl::StrContains(options.listen, ':')) {
    return Invalid("listen", absl::StrCat("\"", options.listen, "\" is not HOST:PORT"));
  }
  options.cache_dir = config.cache_dir().empty() ? DefaultCacheDir() : config.cache_dir();
  if (options.cache_dir[0] != '/') return Invalid("cache_dir", "not an absolute path");
  for (const std::string& root : config.root()) {
    STOKER_ASSIGN_OR_RETURN(std::string canonical, Canonical("root", root));
    options.roots.push_back(std::move(canonical));
  }
  // A daemon that somebody starts for himself reads what he has at home; a system daemon reads what it is told to.
  const bool personal = options.socket != kSystemSocketPath;
  if (options.roots.empty() && personal && !HomeDirectory().empty()) {
    if (auto home = Canonical("root", HomeDirectory()); home.ok()) options.roots.push_back(*std::move(home));
  }
  options.arena_bytes = config.arena_bytes().empty() ? "auto" : config.arena_bytes();
  options.segment_bytes = config.segment_bytes().empty() ? "auto" : config.segment_bytes();
  STOKER_RETURN_IF_ERROR(CheckSize("arena_bytes", options.arena_bytes));
  STOKER_RETURN_IF_ERROR(CheckSize("segment_bytes", options.segment_bytes));
  STOKER_ASSIGN_OR_RETURN(options.workers, ParseWorkers(config.workers()));
  options.shm_dir = config.shm_dir().empty() ? segment::kDefaultDirectory : config.shm_dir();
  if (options.shm_dir[0] != '/') return Invalid("shm_dir", "not an absolute path");
  STOKER_ASSIGN_OR_RETURN(options.lease_limit, InRange<uint32_t>("lease_limit", config.lease_limit(), 64, 1, 65536));
  STOKER_ASSIGN_OR_RETURN(options.session_limit,
                          InRange<uint32_t>("session_limit", config.session_limit(), 1024, 1, 65536));
  STOKER_ASSIGN_OR_RETURN(const double part,
                          InRange<double>("part_deadline_seconds", config.part_deadline_seconds(), 60, 0.01, 86400));
  STOKER_ASSIGN_OR_RETURN(const double drain,
                          InRange<double>("drain_deadline_seconds", config.drain_deadline_seconds(), 10, 0.01, 3600));
  options.part_deadline = absl::Seconds(part);
  options.drain_deadline = absl::Seconds(drain);
  options.worker_program = config.worker_program().empty() ? WorkerBesideUs() : config.worker_program();
  if (options.workers > 0 && ::access(options.worker_program.c_str(), X_OK) != 0) {
    return Annotate(ErrnoStatus(errno, "run", options.worker_program), "worker_program");
  }
  options.temporary = config.temporary();
  STOKER_ASSIGN_OR_RETURN(options.log_level, ParseLogLevel(config.log_level()));
  return options;
}

std::string DescribeOptions(const DaemonOptions& options) {
  return absl::StrCat(
      "socket: ", options.socket,
      options.socket_group.empty() ? "" : absl::StrCat(" (group ", options.socket_group, ")"),
      "\nlisten: ", options.listen.empty() ? "no TCP" : options.listen, "\ncache_dir: ", options.cache_dir,
      options.temporary ? "\ntemporary: yes" : "",
      "\nroots: ", options.roots.empty() ? "none: nothing can be ingested" : absl::StrJoin(options.roots, ", "),
      "\narena_bytes: ", options.arena_bytes, "\nsegment_bytes: ", options.segment_bytes,
      "\nworkers: ", options.workers == 0 ? "0 (batches are made in the daemon)" : absl::StrCat(options.workers),
      "\nshm_dir: ", options.shm_dir, "\nlease_limit: ", options.lease_limit,
      "\nsession_limit: ", options.session_limit, "\npart_deadline: ", absl::FormatDuration(options.part_deadline),
      "\ndrain_deadline: ", absl::FormatDuration(options.drain_deadline), "\nworker_program: ", options.worker_program,
      "\n");
}

int UsableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int count = 1;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
  const double limit = CgroupProcessors();
  if (limit < count) count = static_cast<int>(std::lround(limit));
  return std::clamp(count, 1, kMostWorkers);
}

}  // namespace stoker
