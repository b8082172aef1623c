#!/usr/bin/perl
# A page of notes. Each note is a file on the data disk, written durably before it is
# acknowledged. The session and its counter live in this process's memory and nowhere else.
#
# It speaks HTTP to nginx on a unix socket, one request at a time: nginx has read the whole
# request before it comes here. Needs nothing but Debian's perl-base.
use strict;
use warnings;
use IO::Handle;
use IO::Socket::UNIX;
use POSIX ();

my $folder = $ENV{NOTES_FOLDER} // '/var/lib/notes';
my $run = $ENV{NOTES_RUN} // '/run/notes';
my $note_bytes_max = 4096;
my $notes_max = 10_000;

my %reason = (
    200 => 'OK', 201 => 'Created', 204 => 'No Content', 303 => 'See Other', 400 => 'Bad Request',
    404 => 'Not Found', 405 => 'Method Not Allowed', 413 => 'Content Too Large',
    500 => 'Internal Server Error', 507 => 'Insufficient Storage',
);

my $session = read_random(8);
my $hits = 0;
my $last_id = (sort { $a <=> $b } 0, note_ids())[-1];

my $path = "$run/socket";
unlink $path;
umask 0007;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 128)
    or die "notes: cannot listen on $path: $!\n";
umask 0077;

# Into the background only now: whoever started us knows that we are ready.
unless ($ENV{NOTES_FOREGROUND}) {
    my $child = fork // die "notes: cannot fork: $!\n";
    if ($child) {
        write_file("$run/pid", "$child\n");
        POSIX::_exit(0);
    }
    POSIX::setsid();
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
}
$SIG{PIPE} = 'IGNORE';
# Somebody else from now on, who has the same memory: what was drawn or counted before is not its own.
$SIG{HUP} = sub { ($session, $hits) = (read_random(8), 0) };
chdir '/';

while (1) {
    my $client = $listener->accept or next;
    eval {
        local $SIG{ALRM} = sub { die "too slow\n" };
        alarm 10;
        serve($client);
        alarm 0;
    };
    alarm 0;
    close $client;
}

sub serve {
    my ($client) = @_;
    my ($status, $type, $body, @headers) = eval { answer($client) };
    if ($@) {
        ($status, $type, $body, @headers) = (500, 'text/plain', "error: $@");
    }
    print $client join("\r\n",
        "HTTP/1.0 $status $reason{$status}",
        "Content-Type: $type",
        'Content-Length: ' . length $body,
        'Cache-Control: no-store',
        'Connection: close',
        @headers, '', '') . $body;
    $client->flush;
}

sub answer {
    my ($client) = @_;
    my $line = <$client> // '';
    my ($method, $target) = $line =~ m{^([A-Z]+) (/\S*) HTTP/1\.[01]\r?$}
        or return failed(400, 'not an HTTP request');
    my %header;
    while (defined(my $field = <$client>)) {
        last if $field =~ /^\r?$/;
        $header{lc $1} = $2 if $field =~ /^([^:\s]+):\s*(.*?)\s*\r?$/;
    }
    $hits++;
    $target =~ s/\?.*//;
    if ($target eq '/') {
        return failed(405, 'only GET is possible here') unless $method =~ /^(GET|HEAD)$/;
        return (200, 'text/html; charset=utf-8', page());
    }
    if ($target eq '/api/state') {
        return failed(405, 'only GET is possible here') unless $method =~ /^(GET|HEAD)$/;
        return (200, 'application/json', state_json());
    }
    if ($target eq '/api/notes') {
        return failed(405, 'only POST is possible here') unless $method eq 'POST';
        return add(body($client, \%header), $header{'content-type'} // '');
    }
    if ($target =~ m{^/api/notes/(\d{1,9})$}) {
        return failed(405, 'only DELETE is possible here') unless $method eq 'DELETE';
        return remove($1 + 0);
    }
    return failed(404, 'there is nothing here');
}

sub failed {
    my ($status, $message) = @_;
    return ($status, 'application/json', '{"error":' . json($message) . "}\n");
}

sub body {
    my ($client, $header) = @_;
    my $length = $header->{'content-length'} // 0;
    return undef if $length !~ /^\d+$/ || $length > 16 * $note_bytes_max;
    my $body = '';
    while (length $body < $length) {
        my $read = read $client, $body, $length - length $body, length $body;
        return undef unless $read;
    }
    return $body;
}

# A note comes as JSON {"text": "..."}, as the page's form, or as the plain text itself.
sub add {
    my ($body, $type) = @_;
    return failed(413, "a note has at most $note_bytes_max bytes") unless defined $body;
    my $text = $body;
    my $form = 0;
    if ($type =~ m{^application/json}i) {
        $text = text_of_json($body);
        return failed(400, 'expected {"text": "..."}') unless defined $text;
    } elsif ($type =~ m{^application/x-www-form-urlencoded}i && $body =~ /(?:^|&)text=([^&]*)/) {
        $form = 1;
        $text = $1;
        $text =~ tr/+/ /;
        $text =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    }
    $text = utf8_or_ascii($text);
    $text =~ s/[\r\n]+$//;
    return failed(400, 'an empty note') if $text eq '';
    return failed(413, "a note has at most $note_bytes_max bytes") if length $text > $note_bytes_max;
    return failed(507, 'too many notes') if note_ids() >= $notes_max;
    my $id = $last_id + 1;
    eval { write_file("$folder/.new", $text, 1); 1 }
        or return failed(507, "cannot write the note: $!");
    rename "$folder/.new", "$folder/$id" or return failed(507, "cannot keep the note: $!");
    sync_folder($folder);
    $last_id = $id;
    return (303, 'text/plain', '', 'Location: /') if $form;
    return (201, 'application/json', note_json($id, $text) . "\n", "Location: /api/notes/$id");
}

sub remove {
    my ($id) = @_;
    unlink "$folder/$id" or return failed(404, "there is no note $id");
    sync_folder($folder);
    return (204, 'text/plain', '');
}

sub note_ids {
    opendir my $entries, $folder or return ();
    my @ids = sort { $a <=> $b } grep { /^\d{1,9}$/ } readdir $entries;
    return @ids;
}

sub notes {
    return map { [$_, read_file("$folder/$_")] } note_ids();
}

sub state_json {
    return sprintf qq({"boot_id":%s,"session":%s,"hits":%d,"uptime":%s,"notes":[%s]}\n),
        json(boot_id()), json($session), $hits, uptime(),
        join ',', map { note_json(@$_) } notes();
}

sub note_json {
    my ($id, $text) = @_;
    return sprintf '{"id":%d,"text":%s}', $id, json($text);
}

sub page {
    my $rows = join '', map {
        my ($id, $text) = ($_->[0], html($_->[1]));
        qq(<li id="note-$id">$text <button data-note="$id">delete</button></li>\n)
    } notes();
    my ($boot, $uptime) = (boot_id(), uptime());
    return <<"END";
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Notes</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em }
li { white-space: pre-wrap }
dt { float: left; width: 9em; color: #666 }
</style>
<h1>Notes</h1>
<form method="post" action="/api/notes"><input name="text" maxlength="1000" required autofocus>
<button>add</button></form>
<ul>
$rows</ul>
<dl>
<dt>boot</dt><dd>$boot</dd>
<dt>up for</dt><dd>$uptime s</dd>
<dt>session</dt><dd>$session, in memory only</dd>
<dt>requests in it</dt><dd>$hits</dd>
</dl>
<script>
document.addEventListener('click', async event => {
    const id = event.target.dataset.note;
    if (!id) return;
    await fetch('/api/notes/' + id, {method: 'DELETE'});
    location.reload();
});
</script>
</html>
END
}

sub boot_id {
    my ($id) = read_file('/proc/sys/kernel/random/boot_id') =~ /^([0-9a-f-]+)/;
    return $id;
}

sub uptime {
    my ($seconds) = read_file('/proc/uptime') =~ /^([0-9.]+)/;
    return $seconds;
}

sub html {
    my ($text) = @_;
    my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
    $text =~ s/([&<>"])/$entity{$1}/g;
    return $text;
}

# Text is bytes throughout; what is not UTF-8 becomes question marks.
sub utf8_or_ascii {
    my ($text) = @_;
    my $characters = $text;
    my $good = utf8::decode($characters) && $characters !~ /[\x{d800}-\x{dfff}]|[^\x{0}-\x{10ffff}]/;
    $text =~ s/[\x80-\xff]/?/g unless $good;
    return $text;
}

sub json {
    my ($text) = @_;
    $text =~ s/(["\\])/\\$1/g;
    $text =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
    return qq("$text");
}

sub text_of_json {
    my ($body) = @_;
    my ($quoted) = $body =~ /^\s*\{\s*"text"\s*:\s*"((?:[^"\\\x00-\x1f]|\\.)*)"\s*\}\s*$/s
        or return undef;
    my %escape = (b => "\b", f => "\f", n => "\n", r => "\r", t => "\t");
    # A surrogate pair is one character.
    $quoted =~ s{\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)}
        {character(0x10000 + ((hex($1) - 0xd800) << 10) + hex($2) - 0xdc00)}ge;
    $quoted =~ s{\\(?:u([0-9A-Fa-f]{4})|(.))}
        {defined $1 ? character(hex $1) : $escape{$2} // $2}ges;
    return $quoted;
}

sub character {
    my ($code) = @_;
    my $text = chr($code >= 0xd800 && $code < 0xe000 ? 0xfffd : $code);
    utf8::encode($text);
    return $text;
}

sub read_file {
    my ($path) = @_;
    open my $file, '<', $path or return '';
    local $/;
    return scalar(<$file>) // '';
}

sub write_file {
    my ($path, $text, $durable) = @_;
    open my $file, '>', $path or die "$path: $!\n";
    print $file $text or die "$path: $!\n";
    $file->flush or die "$path: $!\n";
    $file->sync or die "$path: $!\n" if $durable;
    close $file or die "$path: $!\n";
}

# A name is durable once its folder is.
sub sync_folder {
    my ($path) = @_;
    open my $folder, '<', $path or return;
    IO::Handle::sync($folder);
}

sub read_random {
    my ($bytes) = @_;
    open my $source, '<:raw', '/dev/urandom' or die "notes: no randomness: $!\n";
    read $source, my $random, $bytes or die "notes: no randomness: $!\n";
    return unpack 'H*', $random;
}
