//! `profiles`: how guests usually behave; with a number, the figures and the day of one guest.

use evenkeel_common::id::Vmid;
use evenkeel_proto::v1::{ListProfilesRequest, Profile, UsageFigures};

use super::{Context, guest_label, or_dash, spans_clusters, vmid_or_all};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{NO_DATA, Screen, float_bytes, number, span};

/// Length of the longest bar of the day.
const BAR: f64 = 40.0;

/// Asks and shows.
pub async fn run(context: &Context, vmid: Option<Vmid>) -> Result<(), CliError> {
    let question = ListProfilesRequest { cluster: context.cluster.clone(), vmid: vmid_or_all(vmid) };
    let answer = context
        .client
        .ask(question, async |mut control, request| control.list_profiles(request).await)
        .await?;
    if let Some(vmid) = vmid
        && answer.profiles.is_empty()
    {
        return Err(CliError::Failed(format!(
            "there is no profile of guest {vmid} yet; `evenkeelctl guests {vmid}` tells whether its data arrives"
        )));
    }
    context.show(&answer, |screen| {
        if vmid.is_none() { list(screen, &answer.profiles) } else { details(screen, &answer.profiles) }
    })
}

fn list(screen: &Screen, profiles: &[Profile]) -> String {
    let mut page = Page::new(screen);
    if profiles.is_empty() {
        page.line(Tone::Normal, "No profiles yet: they need some hours of data.");
        return page.finish();
    }
    let several = spans_clusters(profiles.iter().map(|p| p.cluster.as_str()));
    let mut table = Table::new([
        Column::text("CLUSTER").only_if(several),
        Column::number("VMID"),
        Column::name("NAME"),
        Column::text("NODE").rank(4),
        Column::text("PROFILE"),
        Column::number("OBSERVED").rank(2),
        Column::number("CORES MEAN"),
        Column::number("P95"),
        Column::number("MAX").rank(3),
        Column::number("PER HOUR").rank(5),
        Column::number("MEMORY MEAN").rank(1),
        Column::number("MEM P95").rank(3),
    ]);
    for profile in profiles {
        let cpu =
            |get: fn(&UsageFigures) -> f64, decimals| number(profile.cpu_cores.as_ref().map(get), decimals);
        let memory = |get: fn(&UsageFigures) -> f64| float_bytes(profile.memory_bytes.as_ref().map(get));
        table.row([
            profile.cluster.as_str().into(),
            profile.vmid.to_string().into(),
            or_dash(&profile.name).into(),
            or_dash(&profile.node).into(),
            Cell::word(&profile.class),
            observed(profile).into(),
            cpu(|f| f.mean, 2).into(),
            cpu(|f| f.p95, 2).into(),
            cpu(|f| f.max, 2).into(),
            cpu(|f| f.slope_per_hour, 3).into(),
            memory(|f| f.mean).into(),
            memory(|f| f.p95).into(),
        ]);
    }
    page.table(&table);
    page.finish()
}

fn details(screen: &Screen, profiles: &[Profile]) -> String {
    let mut page = Page::new(screen);
    for profile in profiles {
        page.gap();
        let label = guest_label(profile.vmid, &profile.name);
        page.line(
            Tone::Strong,
            &format!("Guest {label} of cluster {}: {}", profile.cluster, or_dash(&profile.class)),
        );
        page.line(Tone::Normal, meaning(&profile.class));
        let mut fields = vec![("node", or_dash(&profile.node)), ("observed", observed(profile))];
        fields.extend(origins(profile).map(|origins| ("from", origins)));
        page.fields(&fields);
        page.gap();
        page.inset(&figures(profile));
        if !profile.cpu_by_hour.is_empty() {
            page.section("CPU by hour of day (UTC), mean cores");
            page.inset(&day(profile));
        }
    }
    page.finish()
}

fn figures(profile: &Profile) -> Table {
    let mut table = Table::new([
        Column::text(""),
        Column::number("MIN"),
        Column::number("MEAN"),
        Column::number("P95"),
        Column::number("MAX"),
        Column::number("STD DEV").rank(2),
        Column::number("PER HOUR").rank(1),
    ]);
    let mut add = |label: &str, figures: Option<&UsageFigures>, show: &dyn Fn(f64) -> String| {
        let values = figures.map(|f| [f.min, f.mean, f.p95, f.max, f.std_dev, f.slope_per_hour]);
        let cells = match values {
            Some(values) => values.map(show),
            None => [NO_DATA; 6].map(str::to_owned),
        };
        table.row([Cell::from(label)].into_iter().chain(cells.map(Cell::from)).collect::<Vec<_>>());
    };
    add("cpu, cores", profile.cpu_cores.as_ref(), &|value| number(value, 3));
    add("memory", profile.memory_bytes.as_ref(), &|value| float_bytes(value));
    table
}

/// The day as bars; an hour without data says so.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn day(profile: &Profile) -> Table {
    let mut table = Table::new([Column::number(""), Column::number(""), Column::text("")]).bare();
    let highest = profile.cpu_by_hour.iter().map(|hour| hour.value).fold(0.0, f64::max);
    for hour in 0..24 {
        let value = profile.cpu_by_hour.iter().find(|figure| figure.hour == hour).map(|figure| figure.value);
        let bar = match value {
            Some(value) if value.is_finite() && highest > 0.0 => {
                "#".repeat((value / highest * BAR).round().clamp(0.0, BAR) as usize)
            }
            Some(_) => String::new(),
            None => "no data".to_owned(),
        };
        table.row([format!("{hour:02} h").into(), number(value, 2).into(), Cell::from(bar)]);
    }
    table
}

fn observed(profile: &Profile) -> String {
    seconds(profile.observed_s)
}

fn seconds(seconds: u64) -> String {
    span(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}

/// Where the observed time comes from, unless all of it is from the guest's run here.
fn origins(profile: &Profile) -> Option<String> {
    let Profile { rrd_s, earlier_s, here_s, .. } = *profile;
    let parts = [(rrd_s, "of Proxmox's RRD"), (earlier_s, "of earlier runs"), (here_s, "of this run")];
    let told = parts.iter().filter(|(time, _)| *time > 0);
    let told: Vec<String> = told.map(|(time, what)| format!("{} {what}", seconds(*time))).collect();
    (rrd_s > 0 || earlier_s > 0).then(|| told.join(", "))
}

/// What a class means for decisions.
fn meaning(class: &str) -> &'static str {
    match class {
        "steady" => "Little variation: decisions count on its average.",
        "bursty" => "Spikes far above its average: decisions count on its 95th percentile.",
        "growing" => "A clear upward trend: decisions count on what it uses now plus 48 h of growth.",
        "cyclical" => "A daily or weekly rhythm: decisions count on its peak.",
        _ => "Too little data to say how it behaves.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_where_there_is_more_than_this_run() {
        let of =
            |rrd_s, earlier_s, here_s| origins(&Profile { rrd_s, earlier_s, here_s, ..Profile::default() });
        assert_eq!(of(0, 0, 0), None);
        assert_eq!(of(0, 0, 3600), None);
        let day = 86_400;
        let told = of(13 * day, 0, 2 * day);
        assert_eq!(told.as_deref(), Some("13 d of Proxmox's RRD, 2 d of this run"));
        assert_eq!(of(0, 3 * day, 0).as_deref(), Some("3 d of earlier runs"));
    }
}
