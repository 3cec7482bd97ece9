//! The answers' shapes: which fields there are, as which JSON type, and when they are not there at all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use serde_json::{Map, Value, json};

use super::api::Context;
use super::cluster::{FakeGuest, FakeNode, FakeStorage, PveVersion};

/// Adds to an object. Proxmox leaves a field out where others write null, and so does this.
pub(super) trait Put {
    fn put(&mut self, key: &str, value: impl Into<Option<Value>>);
}

impl Put for Value {
    fn put(&mut self, key: &str, value: impl Into<Option<Value>>) {
        if let (Some(object), Some(value)) = (self.as_object_mut(), value.into()) {
            object.insert(key.to_owned(), value);
        }
    }
}

const NODE_DISK: [u64; 2] = [100 << 30, 20 << 30];

pub(super) fn version(context: &Context<'_>) -> Value {
    let (version, release) = number(context);
    json!({ "version": version, "release": release, "repoid": "0123456789abcdef" })
}

fn number(context: &Context<'_>) -> (&'static str, &'static str) {
    match context.cluster.version {
        PveVersion::V8 => ("8.4.14", "8.4"),
        PveVersion::V9 => ("9.2.11", "9.2"),
    }
}

pub(super) fn permissions(context: &Context<'_>) -> Value {
    const ALWAYS: [&str; 8] =
        ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"];
    let paths: BTreeSet<&str> =
        ALWAYS.into_iter().chain(context.token.acl.keys().map(String::as_str)).collect();
    let mut answer = json!({});
    for path in paths {
        let privileges = context.token.on(path);
        let granted: Map<String, Value> = privileges.into_iter().map(|name| (name, json!(1))).collect();
        answer.put(path, (!granted.is_empty()).then_some(Value::Object(granted)));
    }
    answer
}

pub(super) fn cluster_status(context: &Context<'_>) -> Value {
    let cluster = context.cluster;
    let mut rows: Vec<Value> = Vec::new();
    if let Some(name) = &cluster.name {
        rows.push(json!({ "type": "cluster", "id": "cluster", "name": name, "version": 3,
                          "nodes": cluster.nodes.len(), "quorate": u8::from(cluster.quorate) }));
    }
    for (number, (id, node)) in (1..).zip(&cluster.nodes) {
        rows.push(
            json!({ "type": "node", "id": format!("node/{id}"), "name": id, "nodeid": number, "level": "",
                          "ip": format!("10.66.0.{number}"), "local": u8::from(id == context.local),
                          "online": u8::from(node.online) }),
        );
    }
    Value::Array(rows)
}

pub(super) fn resources(context: &Context<'_>, kind: Option<&str>) -> Value {
    let wanted = |name: &str| kind.is_none_or(|kind| kind == name);
    let cluster = context.cluster;
    let mut rows = Vec::new();
    if wanted("vm") {
        let seen = cluster.guests.iter().filter(|(vmid, _)| context.may(&format!("/vms/{vmid}"), "VM.Audit"));
        rows.extend(seen.map(|(vmid, guest)| guest_row(context, *vmid, guest)));
    }
    if wanted("node") {
        rows.extend(cluster.nodes.iter().map(|(id, node)| {
            let mut row = node_row(context, id, node);
            let hastate = if node.maintenance { "maintenance" } else { "online" };
            row.put("hastate", cluster.has_ha().then(|| json!(hastate)));
            row
        }));
    }
    if wanted("storage") {
        for (id, storage) in &cluster.storages {
            let nodes = cluster.nodes.iter().filter(|(node, _)| storage.is_on(node));
            if sees_storage(context, id) {
                rows.extend(nodes.map(|(name, node)| storage_row(id, storage, name, node)));
            }
        }
    }
    Value::Array(rows)
}

fn sees_storage(context: &Context<'_>, id: &str) -> bool {
    ["Datastore.Audit", "Datastore.AllocateSpace"].iter().any(|p| context.may(&format!("/storage/{id}"), p))
}

/// Jobs of guests that the token may see.
pub(super) fn replications(context: &Context<'_>) -> Value {
    let jobs = context.cluster.replications.iter();
    let seen = jobs.filter(|job| context.may(&format!("/vms/{}", job.guest), "VM.Audit"));
    let rows = seen.map(|job| {
        let mut row = json!({ "id": format!("{}-{}", job.guest, job.number), "guest": job.guest, "jobnum": job.number,
                              "type": "local", "target": job.target, "schedule": job.schedule });
        row.put("source", context.cluster.guests.get(&job.guest).map(|guest| json!(guest.node)));
        row
    });
    rows.collect()
}

fn guest_row(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Value {
    let cluster = context.cluster;
    let kind = guest.kind.name();
    let mut row = json!({ "id": format!("{kind}/{vmid}"), "type": kind, "vmid": vmid, "node": guest.node });
    row.put("lock", guest.lock.as_ref().map(|lock| json!(lock)));
    row.put("tags", (!guest.tags.is_empty()).then(|| json!(guest.tags.join(";"))));
    row.put("pool", guest.pool.as_ref().map(|pool| json!(pool)));
    row.put("hastate", cluster.ha_state(vmid).map(|(state, _)| json!(state)));
    row.put("template", json!(u8::from(guest.template)));
    if !cluster.nodes.get(&guest.node).is_some_and(|node| node.online) {
        row.put("status", json!("unknown"));
        return row;
    }
    let [netin, netout, diskread, diskwrite] =
        guest.traffic.map(|bytes| if guest.runs() { bytes } else { 0 });
    let figures = [
        ("status", json!(guest.status)),
        ("name", json!(guest.name)),
        ("maxcpu", json!(guest.max_cpu)),
        ("cpu", if guest.runs() { json!(guest.cpu) } else { json!(0) }),
        ("maxmem", json!(guest.max_mem)),
        ("mem", json!(if guest.runs() { guest.mem.0 } else { 0 })),
        ("maxdisk", json!(guest.max_disk)),
        ("disk", json!(0)),
        ("uptime", json!(uptime(context, guest))),
        ("netin", json!(netin)),
        ("netout", json!(netout)),
        ("diskread", json!(diskread)),
        ("diskwrite", json!(diskwrite)),
    ];
    for (key, value) in figures {
        row.put(key, value);
    }
    let memhost = json!(if guest.runs() { guest.mem.0 } else { 0 });
    row.put("memhost", (cluster.version == PveVersion::V9).then_some(memhost));
    row
}

pub(super) fn uptime(context: &Context<'_>, guest: &FakeGuest) -> u64 {
    if guest.runs() { context.cluster.now.since(guest.started_at).as_secs() } else { 0 }
}

/// As in the lists of nodes and of resources: without Sys.Audit, or while the node is away, figures are missing.
fn node_row(context: &Context<'_>, id: &NodeId, node: &FakeNode) -> Value {
    let status = if node.online { "online" } else { "offline" };
    let mut row =
        json!({ "id": format!("node/{id}"), "type": "node", "node": id, "status": status, "level": "" });
    if !context.may(&format!("/nodes/{id}"), "Sys.Audit") {
        return row;
    }
    row.put("maxcpu", json!(node.max_cpu));
    row.put("maxmem", json!(node.max_mem));
    row.put("maxdisk", json!(NODE_DISK[0]));
    if node.online {
        row.put("cpu", json!(node.cpu));
        row.put("mem", json!(node.mem));
        row.put("disk", json!(NODE_DISK[1]));
        row.put("uptime", json!(context.cluster.now.since(node.booted_at).as_secs()));
    }
    row
}

fn storage_row(id: &str, storage: &FakeStorage, name: &NodeId, node: &FakeNode) -> Value {
    let mut row = json!({ "id": format!("storage/{name}/{id}"), "type": "storage", "storage": id, "node": name,
                          "shared": u8::from(storage.shared), "plugintype": storage.kind, "content": storage.content,
                          "status": if node.online { "available" } else { "unknown" } });
    if node.online {
        row.put("maxdisk", json!(storage.size));
        row.put("disk", json!(storage.used));
    }
    row
}

pub(super) fn nodes(context: &Context<'_>) -> Value {
    let rows = context.cluster.nodes.iter().map(|(id, node)| {
        let mut row = node_row(context, id, node);
        row.put("ssl_fingerprint", node.ssl_fingerprint.as_ref().map(|text| json!(text)));
        row
    });
    rows.collect()
}

/// Local time as if it were UTC beside the true one.
pub(super) fn time(context: &Context<'_>) -> Value {
    let now = context.cluster.now.as_secs();
    json!({ "time": now, "localtime": now + i64::from(context.cluster.utc_offset_s), "timezone": "Europe/Vienna" })
}

pub(super) fn node_status(context: &Context<'_>, node: &FakeNode) -> Value {
    let (version, _) = number(context);
    let kernel = "6.17.4-1-pve";
    let used = node.mem.0;
    let free = node.max_mem.0.saturating_sub(used);
    let mut status = json!({
        "pveversion": format!("pve-manager/{version}/0123456789abcdef"),
        "kversion": format!("Linux {kernel} #1 SMP PREEMPT_DYNAMIC"),
        "current-kernel": { "sysname": "Linux", "release": kernel, "version": "#1 SMP PREEMPT_DYNAMIC", "machine": "x86_64" },
        "boot-info": { "mode": "efi" },
        "uptime": context.cluster.now.since(node.booted_at).as_secs(),
        "loadavg": node.load.map(|value| format!("{value:.2}")),
        "cpu": node.cpu, "wait": 0, "idle": 0,
        "cpuinfo": { "model": node.cpu_model, "cpus": node.max_cpu, "cores": node.max_cpu / 2, "sockets": 1,
                     "mhz": "2994.375", "vendor": "AuthenticAMD", "family": "25", "hvm": "", "user_hz": 100,
                     "flags": "fpu vme de pse tsc msr avx2" },
        "memory": { "total": node.max_mem, "used": used, "free": free },
        "swap": { "total": 0, "used": 0, "free": 0 },
        "rootfs": { "total": NODE_DISK[0], "used": NODE_DISK[1], "free": NODE_DISK[0] - NODE_DISK[1],
                    "avail": NODE_DISK[0] - NODE_DISK[1] },
        "ksm": { "shared": 0 },
    });
    if context.cluster.version == PveVersion::V9 {
        status["memory"].put("available", json!(free));
    }
    status
}

pub(super) fn node_storages(context: &Context<'_>, node: &NodeId) -> Value {
    let rows = context
        .cluster
        .storages
        .iter()
        .filter(|(id, storage)| storage.is_on(node) && sees_storage(context, id));
    let rows = rows.map(|(id, storage)| {
        json!({ "storage": id, "type": storage.kind, "content": storage.content, "active": 1, "enabled": 1,
                "shared": u8::from(storage.shared), "total": storage.size, "used": storage.used,
                "avail": storage.size.saturating_sub(storage.used),
                "used_fraction": storage.used.as_f64() / storage.size.as_f64().max(1.0) })
    });
    rows.collect()
}

pub(super) fn node_guests(context: &Context<'_>, node: &NodeId, kind: GuestKind) -> Value {
    let here = context.cluster.guests.iter().filter(|(_, guest)| guest.node == *node && guest.kind == kind);
    let seen = here.filter(|(vmid, _)| context.may(&format!("/vms/{vmid}"), "VM.Audit"));
    seen.map(|(vmid, guest)| short_status(context, *vmid, guest)).collect()
}

/// What list and status of a guest share.
fn short_status(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Value {
    let [netin, netout, diskread, diskwrite] = guest.traffic;
    let mem = if guest.runs() { guest.mem.0 } else { 0 };
    let mut row = json!({ "vmid": vmid, "name": guest.name, "status": if guest.runs() { "running" } else { "stopped" },
        "cpus": guest.max_cpu, "cpu": 0, "maxmem": guest.max_mem, "mem": mem, "maxdisk": guest.max_disk, "disk": 0,
        "netin": netin, "netout": netout, "uptime": uptime(context, guest) });
    row.put("memhost", (context.cluster.version == PveVersion::V9).then(|| json!(mem)));
    row.put("tags", (!guest.tags.is_empty()).then(|| json!(guest.tags.join(";"))));
    row.put("lock", guest.lock.as_ref().map(|lock| json!(lock)));
    row.put("template", guest.template.then(|| json!(1)));
    if guest.runs() {
        row.put("diskread", json!(diskread));
        row.put("diskwrite", json!(diskwrite));
        row.put("pid", json!(100_000 + vmid.get()));
    }
    row
}

pub(super) fn current(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Value {
    let mut row = short_status(context, vmid, guest);
    let ha = context.cluster.ha_resources.get(&vmid);
    let mut managed = json!({ "managed": u8::from(ha.is_some_and(|ha| ha.state != "ignored")) });
    managed.put("state", ha.map(|ha| json!(ha.state)));
    row.put("ha", managed);
    if guest.kind == GuestKind::Lxc {
        row.put("type", json!("lxc"));
        return row;
    }
    row.put("qmpstatus", json!(guest.status));
    let config = guest_config(vmid, guest);
    row.put("agent", config.get("agent").map(|_| json!(1)));
    if let Some(mib) = config.get("balloon").and_then(Value::as_u64).filter(|mib| *mib > 0) {
        row.put("balloon_min", json!(mib << 20));
        row.put("shares", json!(1000));
    }
    if guest.runs() && context.cluster.version == PveVersion::V9 {
        let none = json!({ "some": 0, "full": 0 });
        row.put("pressure", json!({ "cpu": none, "io": none, "memory": none }));
        row.put(
            "nics",
            json!({ format!("tap{vmid}i0"): { "netin": guest.traffic[0], "netout": guest.traffic[1] } }),
        );
    }
    row
}

pub(super) fn config(_: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Value {
    guest_config(vmid, guest)
}

fn guest_config(vmid: Vmid, guest: &FakeGuest) -> Value {
    let mac = format!(
        "BC:24:11:{:02X}:{:02X}:{:02X}",
        vmid.get() >> 16 & 255,
        vmid.get() >> 8 & 255,
        vmid.get() & 255
    );
    let memory = (guest.max_mem.0 >> 20).to_string();
    let mut config = match guest.kind {
        GuestKind::Qemu => json!({
            "name": guest.name, "cores": guest.max_cpu, "sockets": 1, "memory": memory, "balloon": guest.max_mem.0 >> 21,
            "cpu": "x86-64-v2-AES", "ostype": "l26", "agent": "1", "boot": "order=scsi0;net0", "onboot": 1,
            "scsihw": "virtio-scsi-single", "net0": format!("virtio={mac},bridge=vmbr0,firewall=1"),
            "meta": "creation-qemu=10.1.2,ctime=1790000000",
            "smbios1": format!("uuid=00000000-0000-4000-8000-{:012}", vmid.get()),
            "vmgenid": format!("00000000-0000-4000-9000-{:012}", vmid.get()),
        }),
        GuestKind::Lxc => json!({
            "hostname": guest.name, "cores": guest.max_cpu, "memory": memory, "swap": 512, "arch": "amd64", "ostype": "debian",
            "unprivileged": 1, "net0": format!("name=eth0,bridge=vmbr0,hwaddr={mac},ip=dhcp,type=veth"),
        }),
    };
    config.put("tags", (!guest.tags.is_empty()).then(|| json!(guest.tags.join(";"))));
    config.put("template", guest.template.then(|| json!(1)));
    config.put("lock", guest.lock.as_ref().map(|lock| json!(lock)));
    for (key, value) in &guest.options {
        config.put(key, value.clone());
    }
    let digest = digest(&config.to_string());
    config.put("digest", json!(digest));
    config
}

/// 40 hex digits that change with the text; nobody checks that they are its SHA-1.
pub(super) fn digest(text: &str) -> String {
    let mut digits = String::new();
    for salt in 0..3 {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        let _ = write!(digits, "{:016x}", hasher.finish()); // Writing to a String can not fail.
    }
    digits.truncate(40);
    digits
}

/// Without Sys.Audit only what every user's interface needs. `crs` is an object from 9 on.
pub(super) fn options(context: &Context<'_>) -> Value {
    let cluster = context.cluster;
    let mut options = json!({ "console": "html5" });
    if !context.may("/", "Sys.Audit") {
        return options;
    }
    options.put("keyboard", json!("en-us"));
    options.put("mac_prefix", json!("BC:24:11"));
    let text = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    };
    let crs = match cluster.version {
        PveVersion::V8 => json!(cluster.crs.iter().map(text).collect::<Vec<_>>().join(",")),
        PveVersion::V9 => json!(cluster.crs),
    };
    options.put("crs", (!cluster.crs.is_empty()).then_some(crs));
    options
}
