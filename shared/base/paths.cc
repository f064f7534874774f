// SPDX-License-Identifier: Apache-2.0
#include "shared/base/paths.h"

#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace stoker {
namespace {

// The XDG rules ask to ignore paths that are not absolute.
std::string AbsolutePathFrom(const char* variable) {
  const char* value = ::getenv(variable);
  return value != nullptr && value[0] == '/' ? value : "";
}

std::string TemporaryDir() { return absl::StrCat("/tmp/stoker-", ::geteuid()); }

}  // namespace

std::string DefaultSocketPath() {
  const std::string runtime = AbsolutePathFrom("XDG_RUNTIME_DIR");
  return runtime.empty() ? absl::StrCat(TemporaryDir(), "/stoker.sock") : absl::StrCat(runtime, "/stoker/stoker.sock");
}

absl::Status CheckSocketDirectory(const std::string& socket_path) {
  const std::string directory = TemporaryDir();
  struct stat info;
  if (!absl::StartsWith(socket_path, directory + "/") || ::lstat(directory.c_str(), &info) != 0) {
    return absl::OkStatus();
  }
  if (S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() && (info.st_mode & (S_IWGRP | S_IWOTH)) == 0) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat(directory,
                   ": is not yours alone, so what listens there may be another's: remove it, set "
                   "XDG_RUNTIME_DIR, or give another socket"));
}

std::string LanePath(const std::string& socket) { return absl::StrCat(socket, ".lane"); }

std::string DefaultCacheDir() {
  if (const std::string cache = AbsolutePathFrom("XDG_CACHE_HOME"); !cache.empty()) {
    return absl::StrCat(cache, "/stoker");
  }
  const std::string home = HomeDirectory();
  return home.empty() ? absl::StrCat(TemporaryDir(), "/cache") : absl::StrCat(home, "/.cache/stoker");
}

std::string HomeDirectory() {
  if (std::string home = AbsolutePathFrom("HOME"); !home.empty()) return home;
  passwd entry;
  passwd* found = nullptr;
  std::vector<char> buffer(16384);
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return "";
  return entry.pw_dir != nullptr && entry.pw_dir[0] == '/' ? entry.pw_dir : "";
}

}  // namespace stoker
