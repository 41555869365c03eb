#include "comm/monitor/monitor_routes.h"

#include <nlohmann/json.hpp>

#include "comm/monitor/families.h"
#include "core/build_info.h"
#include "core/version.h"

namespace kvgrid::comm {

namespace {

HttpReply state(const char* good, const std::string& problem) {
    if (problem.empty()) return {.body = std::string(good) + "\n"};
    return {.status = 503, .body = std::string("not ") + good + ": " + problem + "\n"};
}

HttpReply version_of(const std::string& program) {
    const nlohmann::json version{
        {"program", program}, {"version", kVersion}, {"commit", build_commit()}, {"compiler", build_compiler()}};
    return {.content_type = "application/json", .body = version.dump(2) + "\n"};
}

}  // namespace

HttpRoutes monitor_routes(Monitored monitored) {
    return {{"/live", [ask = std::move(monitored.not_live)] { return state("live", ask()); }},
            {"/ready", [ask = std::move(monitored.not_ready)] { return state("ready", ask()); }},
            {"/version", [program = std::move(monitored.program)] { return version_of(program); }},
            {"/metrics", [metrics = std::move(monitored.metrics)] {
                 return HttpReply{.content_type = kMetricsContentType, .body = metrics()};
             }}};
}

}  // namespace kvgrid::comm
