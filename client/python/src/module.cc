// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <grpc/grpc.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/python/src/bindings.h"
#include "shared/base/version.h"

namespace stoker::python {

std::atomic<int> calls_in_flight = 0;
std::atomic<bool> ending = false;

nb::str Text(absl::string_view text) {
  return nb::steal<nb::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) throw StatusError(absl::InternalError(absl::StrCat("to JSON: ", status.ToString())));
  return json;
}

namespace {

// protobuf's `(field): invalid value "X" for type type.googleapis.com/NAME`, with the names that the enum has instead.
std::string WithChoices(const std::string& message) {
  static constexpr char kBefore[] = " for type type.googleapis.com/";
  const size_t at = message.find(kBefore);
  if (at == std::string::npos) return message;
  const auto* choices =
      google::protobuf::DescriptorPool::generated_pool()->FindEnumTypeByName(message.substr(at + sizeof(kBefore) - 1));
  if (choices == nullptr) return message;
  std::string text = absl::StrCat(message.substr(0, at), ": there are");
  for (int i = 0; i < choices->value_count(); ++i) {
    const std::string& name = choices->value(i)->name();
    if (!absl::StrContains(name, "UNSPECIFIED")) absl::StrAppend(&text, " ", name);
  }
  return text;
}

}  // namespace

void FromJson(const std::string& json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(json, message);
  if (status.ok()) return;
  throw StatusError(absl::InvalidArgumentError(
      absl::StrCat(message->GetDescriptor()->name(), ": ", WithChoices(std::string(status.message())))));
}

namespace {

// Raises stoker.errors' exception of the status.
void Raise(const absl::Status& status) {
  const nb::object make = nb::module_::import_("stoker.errors").attr("from_status");
  const nb::object error = make(static_cast<int>(status.code()), Text(status.message()));
  PyErr_SetObject(error.type().ptr(), error.ptr());
}

void Translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const StatusError& error) {
    Raise(error.status());
  }
}

// gRPC keeps one epoll set with an eventfd in it even when it has ended, and a child of fork would share both with its
// parent. Puts new ones in their place, with the same numbers and the same data.
void RenewPoller(int fd) {
  std::ifstream info(absl::StrCat("/proc/self/fdinfo/", fd));
  const int fresh = ::epoll_create1(EPOLL_CLOEXEC);
  for (std::string line; fresh >= 0 && std::getline(info, line);) {
    int member = -1;
    epoll_event event = {};
    uint32_t events = 0;
    uint64_t data = 0;
    if (std::sscanf(line.c_str(), "tfd: %d events: %x data: %lx", &member, &events, &data) != 3) continue;
    const int counter = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (counter < 0) continue;
    (void)::dup3(counter, member, O_CLOEXEC);
    (void)::close(counter);
    event.events = events;
    event.data.u64 = data;
    (void)::epoll_ctl(fresh, EPOLL_CTL_ADD, member, &event);
  }
  if (fresh < 0) return;
  (void)::dup3(fresh, fd, O_CLOEXEC);
  (void)::close(fresh);
}

}  // namespace
}  // namespace stoker::python

NB_MODULE(_stoker, module) {
  namespace python = stoker::python;
  nanobind::register_exception_translator(python::Translate);
  nanobind::set_leak_warnings(false);  // what is alive at exit is the user's, and was told to close
  module.attr("version") = stoker::kVersion;
  module.def("calls_in_flight", [] { return python::calls_in_flight.load(); });
  module.def("grpc_running", [] { return grpc_is_initialized() != 0; });
  module.def("renew_poller", python::RenewPoller);
  module.def("end_calls", [] { python::ending = true; });
  python::BindBatch(module);
  python::BindLoader(module);
  python::BindDevice(module);
  python::BindClient(module);
  python::BindEmbedded(module);
  python::BindIterations(module);
}
